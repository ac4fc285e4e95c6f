-- For Quarto's Typst book, after all of Quarto's own work; the press prints without it (book/press/pdf.py).
--
-- In the printed book a part is a heading of level 1 and a chapter one of level 2. Pandoc writes
-- `= Title` for most headings, which Typst moves down by the document's offset, but
-- `#heading(level: 1)` for those without a number, which it does not: these get `depth`, which moves.
-- Quarto puts the subtitle of a chapter below its title as a paragraph, and an empty line after it.

if not (quarto and FORMAT:match("typst")) then return {} end

local function raw(text)
  return pandoc.RawInline("typst", text)
end

local function heading(header)
  local unnumbered, unlisted = header.classes:includes("unnumbered"), header.classes:includes("unlisted")
  if not (unnumbered or unlisted) then return nil end
  local options = "depth: " .. header.level
  if unnumbered then options = options .. ", numbering: none" end
  if unlisted then options = options .. ", outlined: false" end
  local label = header.identifier ~= "" and (' #label("' .. header.identifier .. '")') or ""
  return pandoc.Plain(pandoc.Inlines({ raw("#heading(" .. options .. ")[") }) .. header.content .. { raw("]" .. label) })
end

local function is_subtitle(header, text, gap)
  return header.t == "Header" and header.level == 1 and text.t == "Para"
    and gap.t == "Plain" and #gap.content == 1 and gap.content[1].t == "LineBreak"
end

local function subtitles(blocks)
  for i = #blocks - 2, 1, -1 do
    if is_subtitle(blocks[i], blocks[i + 1], blocks[i + 2]) then
      blocks[i + 1] = pandoc.Plain(pandoc.Inlines({ raw("#subtitle[") }) .. blocks[i + 1].content .. { raw("]") })
      blocks:remove(i + 2)
    end
  end
  return blocks
end

return {
  { Blocks = subtitles },
  {
    Header = heading,
    Div = function(div) -- two columns, as the press has them
      if div.classes:includes("glossary-entries") then
        return pandoc.Blocks({ pandoc.RawBlock("typst", "#glossary[") }) .. div.content .. { pandoc.RawBlock("typst", "]") }
      end
    end,
    RawBlock = function(block) -- the template's `appendices` opens that part
      if block.format == "typst" and block.text:match("^#heading%(level: 1, numbering: none%)%[Appendices%]$") then return {} end
    end,
  },
}
