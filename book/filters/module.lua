-- A chapter and the code that it is: its first line says which module it exports and where its files
-- are, each exported cell gets the names that it defines as places to link to, and a name of code in
-- the text links to the cell that defines it, as `.make/names.json` has it (book/press/names.py).

local FOREIGN = { "vLLM", "SGLang", "PyTorch", "Hugging Face", "transformers", "FastAPI", "OpenAI" }
local words, up = {}, ""
local plain_only = quarto ~= nil and FORMAT:match("typst") ~= nil -- one document, without file names

local function root()
  return (quarto and quarto.project and quarto.project.directory) or "."
end

local function source_of(meta)
  if meta["chapter-source"] then return pandoc.utils.stringify(meta["chapter-source"]) end -- the press says so
  return quarto and pandoc.path.make_relative(quarto.doc.input_file, root()) or ""
end

local function words_of(source)
  local file = io.open(root() .. "/.make/names.json", "r")
  if not file or plain_only then return {} end
  local all = pandoc.json.decode(file:read("a"), false)
  file:close()
  return all[source] or {}
end

-- ---- Where a name is defined ----

local function defined_by(code, known)
  local names = pandoc.List({})
  for line in (code .. "\n"):gmatch("(.-)\n") do
    local name = line:match("^class ([%w_]+)") or line:match("^def ([%w_]+)") or line:match("^async def ([%w_]+)")
    if name and not known[name] then
      known[name] = true
      names:insert(pandoc.Span({}, pandoc.Attr("def-" .. name)))
    end
  end
  return names
end

local function with_places(blocks)
  local known, first = {}, nil
  local function cell(div)
    if not div.classes:includes("exported") then return nil end
    local content = pandoc.List({})
    for _, block in ipairs(div.content) do
      if block.t == "CodeBlock" and block.classes:includes("cell-code") then
        local names = defined_by(block.text, known)
        first = first or (names[1] and names[1].identifier)
        if #names > 0 then content:insert(pandoc.Div({ pandoc.Plain(names) }, pandoc.Attr("", { "cell-defines" }))) end
      end
      content:insert(block)
    end
    div.content = content
    return div
  end
  return blocks:walk({ Div = cell }), first
end

-- ---- Names in the text ----

local function link(code)
  local target = words[(code.text:gsub("%(%)$", ""))]
  if not target then return nil end
  local file, anchor = target:match("^(.*)(#.*)$")
  local address = file == words.here and anchor or up .. file .. anchor
  return pandoc.Link({ code }, address, "", pandoc.Attr("", { "code-link" })), false -- not once more within
end

-- A block that speaks of other software may mean that one's names.
local function foreign(block)
  local text = pandoc.utils.stringify(block)
  for _, name in ipairs(FOREIGN) do
    if text:find(name, 1, true) then return true end
  end
  return false
end

local function leave(element) return element, false end
local function unless_foreign(block) if foreign(block) then return block, false end end

local IN_TEXT = {
  traverse = "topdown",
  Code = link,
  Header = leave, Link = leave, Image = leave, Figure = leave, Note = leave,
  Div = function(div)
    local name, classes = div.identifier, div.classes
    local float = name:match("^fig%-") or name:match("^tbl%-") or div.attributes.__quarto_custom_type == "FloatRefTarget"
    if float or classes:includes("cell") or classes:includes("hidden") then return div, false end
  end,
  Para = unless_foreign, BulletList = unless_foreign, OrderedList = unless_foreign, Table = unless_foreign,
}

local function with_links(blocks)
  local elsewhere = false -- in the section on vLLM
  return blocks:map(function(block)
    if block.t == "Header" and block.level <= 2 then elsewhere = foreign(block) end
    if elsewhere then return block end
    return pandoc.Blocks({ block }):walk(IN_TEXT)[1]
  end)
end

-- ---- The first line ----

local function opening(module, source, first)
  local line = pandoc.List({ pandoc.Str("The code of this chapter is"), pandoc.Space(), pandoc.Code(module) })
  if quarto and FORMAT:match("html") then
    local function add(address, text)
      local html = '<a href="%s">%s</a>'
      line:extend({ pandoc.Str(" · "), pandoc.RawInline("html", html:format(address, text)) })
    end
    if first then add("#" .. first, "where it begins") end
    add(up .. "source/" .. source, "the notebook")
    add(up .. "source/" .. module, "the plain file")
  end
  return pandoc.Div({ pandoc.Plain(line) }, pandoc.Attr("", { "chapter-module" }))
end

function Pandoc(doc)
  local source = source_of(doc.meta)
  up = string.rep("../", select(2, source:gsub("/", "")))
  words = words_of(source)
  words.here = source
  local blocks, first = with_places(doc.blocks)
  doc.blocks = with_links(blocks)
  if doc.meta.module then
    doc.blocks:insert(1, opening(pandoc.utils.stringify(doc.meta.module), source, first))
  end
  return doc
end
