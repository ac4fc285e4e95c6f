-- Adds the script of `make widgets` to pages that have a widget, and Fable's weights to those that can
-- load it, for Quarto; the press does so itself. Without the bundle a page shows the widgets' pictures.

local MADE = "../../.make/" -- from this file
local found, needs_fable = false, false

local function exists(name)
  local file = io.open(pandoc.path.join({ pandoc.path.directory(PANDOC_SCRIPT_FILE), MADE .. name }), "r")
  return file ~= nil and file:close()
end

local function weights()
  local resources, number = {}, 0
  while needs_fable and exists(string.format("fable/%03d.js", number)) do
    local name = string.format("fable/%03d.js", number)
    table.insert(resources, { name = name, path = MADE .. name })
    number = number + 1
  end
  return resources
end

function RawBlock(block)
  if block.format:match("html") and block.text:match("^%s*<tl%-") then
    found = true
    needs_fable = needs_fable or block.text:find('"needs":["fable"]', 1, true) ~= nil
  end
end

function Pandoc()
  if found and quarto and quarto.doc and quarto.doc.is_format("html") and exists("widgets.js") then
    quarto.doc.add_html_dependency({
      name = "tinyllm-widgets",
      version = "1.0.0",
      scripts = { { path = MADE .. "widgets.js", afterBody = true } },
      resources = weights(),
    })
  end
end
