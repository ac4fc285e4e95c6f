-- What the front page says of the book, read from the book itself, so that it cannot fall behind:
-- - a Div of class `book-contents` gets the parts and chapters of `_quarto.yml`, and one of class
--   `book-rooms` the workshop, whose parts are called "The workshop: kernels";
-- - a Span of class `reading-time` gets the minutes of the short path, or the hours of the long one;
-- - a Div of class `front-model` gets the widget that stands in chapter 1's hidden cell `front-page`.

local WORDS, LINES = 200, 30 -- words of text and lines of code that are read in a minute

local function read(path)
  local file = assert(io.open(path, "r"), path .. " cannot be read")
  local text = file:read("a")
  file:close()
  return text
end

local function metadata(yaml)
  return pandoc.read("---\n" .. yaml .. "\n---\n", "markdown").meta
end

local function joined(source)
  return type(source) == "table" and table.concat(source) or source
end

local decoded = {} -- the front page looks into each notebook for its title, its words and its lines
local function cells_of(path)
  decoded[path] = decoded[path] or pandoc.json.decode(read(path), false).cells
  return decoded[path]
end

-- Front matter of a notebook: its first raw cell.
local function front_matter(path)
  for _, cell in ipairs(cells_of(path)) do
    if cell.cell_type == "raw" then
      local source = joined(cell.source)
      return metadata((source:gsub("^%s*%-%-%-%s*", ""):gsub("%s*%-%-%-%s*$", "")))
    end
  end
  error(path .. " has no front matter")
end

local function root()
  return (quarto and quarto.project and quarto.project.directory) or "."
end

local function parts()
  local found, number = pandoc.List({}), 0
  for _, entry in ipairs(metadata(read(root() .. "/_quarto.yml")).book.chapters) do
    if type(entry) == "table" and entry.part then
      local title = pandoc.utils.stringify(entry.part)
      local part = { title = title, room = title:match("^The workshop: (.*)$"), first = number + 1 }
      part.chapters = pandoc.List(entry.chapters):map(pandoc.utils.stringify)
      number = number + #part.chapters
      found:insert(part)
    end
  end
  return found
end

local function contents(workshop)
  local blocks = pandoc.List({})
  for _, part in ipairs(parts()) do
    if (part.room ~= nil) == workshop then
      local items = part.chapters:map(function(path)
        local meta = front_matter(root() .. "/" .. path)
        local line = pandoc.List({ pandoc.Link(pandoc.utils.stringify(meta.title or path), path) })
        if meta.subtitle then
          line:extend({ pandoc.Space(), pandoc.Span(pandoc.utils.stringify(meta.subtitle), pandoc.Attr("", { "subtitle" })) })
        end
        return { pandoc.Plain(line) }
      end)
      local title = part.room and part.room:gsub("^%l", string.upper) or part.title
      local name = part.room and "room-" .. part.room:gsub("^the ", ""):match("^%a+") or ""
      local list = pandoc.OrderedList(items, pandoc.ListAttributes(part.first, "Decimal", "Period"))
      local head = pandoc.Para({ pandoc.Strong(title) })
      blocks:insert(pandoc.Div({ head, list }, pandoc.Attr(name, { "contents-part" })))
    end
  end
  return blocks
end

-- ---- Reading times ----

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

-- Words of the short path, words of all text, lines of code that the page shows.
local function length(path)
  local short, words, lines, inside = 0, 0, 0, true
  for _, cell in ipairs(cells_of(root() .. "/" .. path)) do
    local source = joined(cell.source)
    if cell.cell_type == "markdown" then
      for line in (source:gsub("```.-```", "") .. "\n"):gmatch("(.-)\n") do
        local found = count(line, "[%w_\128-\255]+")
        words = words + found
        if line:match("^## ") then
          inside = line:match("^## The idea") or line:match("^## Summary")
        elseif inside then
          short = short + found
        end
      end
    elseif cell.cell_type == "code" and not (source:match("#| *include: *false") or source:match("#| *echo: *false")) then
      for line in (source .. "\n"):gmatch("(.-)\n") do
        if line:match("%S") and not line:match("^#|") then lines = lines + 1 end
      end
    end
  end
  return short, words, lines
end

local function reading_time(classes)
  local minutes, hours = 0, 0
  for _, part in ipairs(parts()) do
    if (part.room ~= nil) == classes:includes("workshop") then
      for _, path in ipairs(part.chapters) do
        local short, words, lines = length(path)
        minutes = minutes + short / WORDS
        hours = hours + (words / WORDS + lines / LINES) / 60
      end
    end
  end
  if classes:includes("short") then return string.format("%d minutes", 5 * math.floor(minutes / 5 + 0.5)) end
  return string.format("%d hours", math.floor(hours + 0.5))
end

-- ---- The model ----

local function escaped(text)
  return (text:gsub("&", "&amp;"):gsub("<", "&lt;"):gsub(">", "&gt;"))
end

-- The element as the cell printed it, and the tokens of its sentence: {text, probability in percent}.
local function front_model()
  local html
  for _, cell in ipairs(cells_of(root() .. "/nbs/01_what_is_an_llm.ipynb")) do
    if joined(cell.source):find("#| label: front-page", 1, true) then
      html = joined(cell.outputs[1].data["text/html"])
    end
  end
  local data = pandoc.json.decode(html:match('<script type="application/json">(.-)</script>'), false)
  local tokens, tree = pandoc.List({}), data.tree
  for _, id in ipairs(data.write) do
    for _, branch in ipairs(tree) do
      if branch[1] == id then
        local share = string.format(branch[2] < 0.01 and "%.1f%%" or "%.0f%%", 100 * branch[2])
        tokens:insert({ data.tokens[tostring(math.tointeger(id))], share })
        tree = branch[3]
        break
      end
    end
  end
  return html, data.prompt, tokens
end

local function model()
  local html, prompt, tokens = front_model()
  local chips = tokens:map(function(token)
    return string.format('<span class="token">%s<small>%s</small></span>', escaped(token[1]), token[2])
  end)
  local sentence = '<p class="sentence"><span class="prompt">' .. escaped(prompt) .. "</span>" .. table.concat(chips) .. "</p>"
  html = html:gsub("<!%-%- picture %-%->", (sentence:gsub("%%", "%%%%")), 1)
  local line = pandoc.List({ pandoc.Strong(prompt) })
  for _, token in ipairs(tokens) do line:extend({ pandoc.Str(token[1]), pandoc.Subscript(token[2]) }) end
  local about = "Written by the model of this book. Below each token stands the probability with which it was drawn."
  local web = pandoc.Blocks({ pandoc.RawBlock("html", html) })
  local print = pandoc.Blocks({ pandoc.Para(line), pandoc.Para({ pandoc.Emph(about) }) })
  if quarto then return FORMAT:match("html") and web or print end
  local function only(when) return pandoc.Attr("", { "content-visible" }, { [when .. "-format"] = "html" }) end
  return pandoc.Blocks({ pandoc.Div(web, only("when")), pandoc.Div(print, only("unless")) })
end

function Div(div)
  if div.classes:includes("book-contents") then
    div.content = contents(false)
  elseif div.classes:includes("book-rooms") then
    div.content = contents(true)
  elseif div.classes:includes("front-model") then
    div.content = model()
  else
    return nil
  end
  return div
end

function Span(span)
  if not span.classes:includes("reading-time") then return nil end
  return pandoc.Str((reading_time(span.classes):gsub(" ", "\u{a0}")))
end
