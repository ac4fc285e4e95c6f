-- Fills a Div of class `book-contents` with the parts and chapters of `_quarto.yml`, their titles
-- read from the notebooks themselves, so that the front page cannot fall behind the book.

local function read(path)
  local file = assert(io.open(path, "r"), path .. " cannot be read")
  local text = file:read("a")
  file:close()
  return text
end

local function metadata(yaml)
  return pandoc.read("---\n" .. yaml .. "\n---\n", "markdown").meta
end

-- Front matter of a notebook: its first raw cell.
local function front_matter(path)
  for _, cell in ipairs(pandoc.json.decode(read(path), false).cells) do
    if cell.cell_type == "raw" then
      local source = type(cell.source) == "table" and table.concat(cell.source) or cell.source
      return metadata((source:gsub("^%s*%-%-%-%s*", ""):gsub("%s*%-%-%-%s*$", "")))
    end
  end
  error(path .. " has no front matter")
end

local function root()
  return (quarto and quarto.project and quarto.project.directory) or "."
end

local function contents()
  local book = metadata(read(root() .. "/_quarto.yml")).book
  local blocks, number = pandoc.List({}), 0
  for _, entry in ipairs(book.chapters) do
    if type(entry) == "table" and entry.part then
      local items = pandoc.List({})
      for _, chapter in ipairs(entry.chapters) do
        number = number + 1
        local path = pandoc.utils.stringify(chapter)
        local meta = front_matter(root() .. "/" .. path)
        local line = pandoc.List({ pandoc.Link(pandoc.utils.stringify(meta.title or path), path) })
        if meta.subtitle then
          line:extend({ pandoc.Space(), pandoc.Span(pandoc.utils.stringify(meta.subtitle), pandoc.Attr("", { "subtitle" })) })
        end
        items:insert({ pandoc.Plain(line) })
      end
      local start = pandoc.ListAttributes(number - #items + 1, "Decimal", "Period")
      local title = pandoc.Para({ pandoc.Strong(pandoc.utils.stringify(entry.part)) })
      blocks:insert(pandoc.Div({ title, pandoc.OrderedList(items, start) }, pandoc.Attr("", { "contents-part" })))
    end
  end
  return blocks
end

function Div(div)
  if div.classes:includes("book-contents") then
    div.content = contents()
    return div
  end
end
