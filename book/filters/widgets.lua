-- Adds the script of `make widgets` to pages that have a widget, for Quarto; the press does so itself.

local found = false

function RawBlock(block)
  found = found or (block.format:match("html") ~= nil and block.text:match("^%s*<tl%-") ~= nil)
end

function Pandoc()
  local path = "../../.make/widgets.js" -- from this file
  if found and quarto and quarto.doc and quarto.doc.is_format("html") then
    quarto.doc.add_html_dependency({
      name = "tinyllm-widgets",
      version = "1.0.0",
      scripts = { { path = path, afterBody = true } },
    })
  end
end
