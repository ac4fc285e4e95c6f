-- The words of `book/glossary.yml`, in the chapters and on the glossary's own page.
--
-- In a chapter the first use of each term in running text becomes a link of class `tl-term`, which
-- carries the definition; where the chapter itself introduces the term in italics, nothing is marked
-- and the italics get the name that the glossary links back to. Code, headings, captions, tables,
-- links and notes are left alone. A Div of class `glossary-entries` is filled with all entries.
-- Quarto sets the whole PDF as one document, without file names: there the words stay plain.

local PAGE = "book/glossary.qmd"
local plain_only = quarto ~= nil and FORMAT:match("typst") ~= nil

local function read(path)
  local file = assert(io.open(path, "r"), path .. " cannot be read")
  local text = file:read("a")
  file:close()
  return text
end

local function root()
  return (quarto and quarto.project and quarto.project.directory) or "."
end

local function metadata(yaml)
  return pandoc.read("---\n" .. yaml .. "\n---\n", "markdown").meta
end

local function words_of(value)
  return pandoc.utils.stringify(value or "")
end

-- ---- The entries ----

local function slug(term)
  return (term:lower():gsub("[^%w]+", "-"):gsub("^%-", ""):gsub("%-$", ""))
end

-- What is compared: lower case, one space between words.
local function phrase(text)
  return (pandoc.text.lower(text):gsub("\194\160", " "):gsub("%s+", " "))
end

local function load_entries()
  local entries, marked, spelled = pandoc.List({}), {}, {}
  for _, item in ipairs(metadata(read(root() .. "/book/glossary.yml")).terms) do
    local entry = {
      term = words_of(item.term),
      chapter = words_of(item.chapter),
      preview = item.preview and words_of(item.preview),
      common = item.common == true,
      except = pandoc.List(item.except or {}):map(words_of),
      definition = item.definition,
      text = words_of(item.definition),
      see = pandoc.List(item.see or {}):map(words_of),
      forms = pandoc.List(item.forms or {}):map(words_of),
    }
    entry.slug = slug(entry.term)
    entries:insert(entry)
    local all = pandoc.List({ entry.term }) .. entry.forms
    for _, form in ipairs(all) do
      local key = phrase(form)
      spelled[key] = spelled[key] or pandoc.List({})
      spelled[key]:insert(entry)
    end
    for _, form in ipairs(item.only and pandoc.List(item.only):map(words_of) or all) do
      marked[phrase(form)] = entry
    end
  end
  return entries, marked, spelled
end

local entries, marked, spelled = load_entries()

-- 01 .. 21 come before w01 .. w16, and "" (a page outside the chapters) after all.
local function order(chapter)
  local workshop, number = chapter:match("^(w?)(%d+)$")
  return number and tonumber(number) + (workshop == "w" and 100 or 0) or 1000
end

-- ---- Where we are ----

local here = { chapter = "", page = nil }

local function find_here(meta)
  local source = words_of(meta["chapter-source"]) -- the press says so
  if source == "" and quarto then
    source = pandoc.path.make_relative(quarto.doc.input_file, root())
  end
  local name = source:match("([^/]+)%.%w+$") or ""
  local up = string.rep("../", select(2, source:gsub("/", "")))
  here = { chapter = name:match("^w?%d+") or "", page = source == PAGE and "" or up .. PAGE, up = up }
  return source
end

-- ---- Marking ----

-- An italic word means the entry of this chapter, else the one introduced last before it.
local function meant(text)
  local best, rank = nil, -1
  for _, entry in ipairs(spelled[phrase(text)] or {}) do
    local at = order(entry.chapter)
    local value = at <= order(here.chapter) and at or 0
    if entry.chapter == here.chapter then value = 2000 elseif entry.preview == here.chapter then value = 1500 end
    if value > rank then best, rank = entry, value end
  end
  return best
end

local function inlines_of(text)
  local out = pandoc.List({})
  for word, gap in text:gmatch("([^ \n]*)([ \n]?)") do
    if word ~= "" then out:insert(pandoc.Str(word)) end
    if gap ~= "" then out:insert(gap == " " and pandoc.Space() or pandoc.SoftBreak()) end
  end
  return out
end

local function link(entry, content, name)
  local about = { ["data-term"] = entry.term, ["data-def"] = entry.text }
  return pandoc.Link(content, here.page .. "#term-" .. entry.slug, "", pandoc.Attr(name, { "tl-term" }, about))
end

-- The words of a text: {first byte, last byte}. Quotation marks and dashes end a word.
local function cut(text)
  local shadow = text:gsub("\226\128[\128-\191]", "\1\1\1"):gsub("\194\160", "  ")
  local words, at = {}, 1
  while true do
    local first, last = shadow:find("[%w\128-\255][%w%-/\128-\255]*", at)
    if not first then return words, shadow end
    at = last + 1
    while shadow:sub(last, last):find("[-/]") do last = last - 1 end
    table.insert(words, { first, last })
  end
end

-- One run of text with its terms marked; nil if it has none. `claim` says what a term becomes.
local function mark_text(text, claim)
  local words, shadow = cut(text)
  local out, copied, i = pandoc.List({}), 0, 1
  while i <= #words do
    local taken = 1
    for count = math.min(4, #words - i + 1), 1, -1 do
      local first, last = words[i][1], words[i + count - 1][2]
      local joined = true
      for k = i, i + count - 2 do
        joined = joined and shadow:sub(words[k][2] + 1, words[k + 1][1] - 1):match("^[ \n]+$")
      end
      local entry = joined and marked[phrase(text:sub(first, last))]
      if entry then
        taken = count
        local name = claim(entry)
        if name then
          out:extend(inlines_of(text:sub(copied + 1, first - 1)))
          out:insert(link(entry, inlines_of(text:sub(first, last)), name))
          copied = last
        end
        break
      end
    end
    i = i + taken
  end
  if copied == 0 then return nil end
  out:extend(inlines_of(text:sub(copied + 1)))
  return out
end

local TEXT = { Str = true, Space = true, SoftBreak = true }
local INSIDE = { Emph = true, Strong = true, Quoted = true, Span = true, Underline = true, SmallCaps = true }

local function mark_inlines(inlines, claim)
  local out, run = pandoc.List({}), pandoc.List({})
  local function flush()
    local text = table.concat(run:map(function(e)
      return e.t == "Str" and e.text or e.t == "Space" and " " or "\n"
    end))
    out:extend(#run > 0 and mark_text(text, claim) or run)
    run = pandoc.List({})
  end
  for _, element in ipairs(inlines) do
    if TEXT[element.t] then
      run:insert(element)
    else
      flush()
      if INSIDE[element.t] and not (element.t == "Span" and element.classes:includes("tl-defined")) then
        element.content = mark_inlines(element.content, claim)
      end
      out:insert(element)
    end
  end
  flush()
  return out
end

-- Not in cells, figures and tables, which Quarto keeps as `FloatRefTarget`; and not in a Div of class
-- `hidden`, where it keeps what stands around the page (the titles of its sidebar).
local function has_running_text(div)
  local name, classes = div.identifier, div.classes
  local float = name:match("^fig%-") or name:match("^tbl%-") or div.attributes.__quarto_custom_type == "FloatRefTarget"
  return not (float or classes:includes("cell") or classes:includes("hidden"))
end

-- Calls `action` with every paragraph of running text.
local function each_paragraph(blocks, action)
  for _, block in ipairs(blocks) do
    local kind = block.t
    if kind == "Para" or kind == "Plain" then
      action(block)
    elseif kind == "Div" then
      if has_running_text(block) then
        each_paragraph(block.content, action)
      end
    elseif kind == "BlockQuote" then
      each_paragraph(block.content, action)
    elseif kind == "BulletList" or kind == "OrderedList" then
      for _, item in ipairs(block.content) do each_paragraph(item, action) end
    end
  end
end

-- pandoc hands out copies: paragraphs are collected first, then put back in the same order.
local function map_paragraphs(blocks, action)
  return pandoc.Blocks(blocks):map(function(block)
    local kind = block.t
    if kind == "Para" or kind == "Plain" then
      action(block)
    elseif kind == "Div" then
      if has_running_text(block) then
        block.content = map_paragraphs(block.content, action)
      end
    elseif kind == "BlockQuote" then
      block.content = map_paragraphs(block.content, action)
    elseif kind == "BulletList" or kind == "OrderedList" then
      block.content = pandoc.List(block.content):map(function(item) return map_paragraphs(item, action) end)
    end
    return block
  end)
end

local function mark_chapter(blocks)
  local done, named, italics = {}, {}, {}
  local function introductions(paragraph, action)
    local function one(element)
      local entry = meant(words_of(element))
      return entry and action(entry, element)
    end
    paragraph.content = pandoc.Inlines(paragraph.content):walk({ Emph = one, Strong = one })
  end
  each_paragraph(blocks, function(paragraph)
    introductions(paragraph, function(entry) italics[entry.term] = true end)
  end)
  local function name_for(entry)
    if entry.chapter ~= here.chapter or named[entry.term] then return "" end
    named[entry.term] = true
    return "word-" .. entry.slug
  end
  blocks = map_paragraphs(blocks, function(paragraph)
    local introduced = {}
    introductions(paragraph, function(entry, element)
      introduced[entry.term] = true
      local about = { ["data-term"] = entry.term }
      return pandoc.Span({ element }, pandoc.Attr(name_for(entry), { "tl-defined" }, about))
    end)
    paragraph.content = mark_inlines(paragraph.content, function(entry)
      local early = entry.common and order(here.chapter) < order(entry.chapter)
      if early or entry.except:includes(here.chapter) or done[entry.term] or introduced[entry.term] then return nil end
      done[entry.term] = true
      return italics[entry.term] and "" or name_for(entry)
    end)
    for term in pairs(introduced) do done[term] = true end
  end)
  -- What the chapter introduces without ever saying the word as it stands here: its beginning.
  local rest = pandoc.List({})
  for _, entry in ipairs(entries) do
    local name = name_for(entry)
    if name ~= "" then rest:insert(pandoc.Span({}, pandoc.Attr(name))) end
  end
  for _, block in ipairs(blocks) do
    if block.t == "Para" then
      block.content = rest .. block.content
      break
    end
  end
  return blocks
end

-- ---- The glossary's page ----

-- chapter ("04") -> {file, words of its link}
local function chapters()
  local found, number = {}, 0
  for _, part in ipairs(metadata(read(root() .. "/_quarto.yml")).book.chapters) do
    for _, item in ipairs(type(part) == "table" and part.chapters or {}) do
      local file = words_of(item)
      local head = pandoc.json.decode(read(root() .. "/" .. file), false).cells[1].source
      head = type(head) == "table" and table.concat(head) or head
      local title = words_of(metadata(head:match("^%s*%-%-%-\n(.-)\n%-%-%-")).title)
      number = number + 1
      found[file:match("/(w?%d+)[^/]*$")] = { file, "Chapter " .. number .. ", " .. title }
    end
  end
  return found
end

-- Short names get a line of their own, so that they are found under their letter.
local function short_names(entry)
  return entry.forms:filter(function(form) return #form <= 5 and form:match("^%u.*%u%d*$") ~= nil end)
end

local function joined(list, separator)
  local out = pandoc.List({})
  for i, item in ipairs(list) do
    if i > 1 then out:extend(separator) end
    out:insert(item)
  end
  return out
end

local function to_entry(term)
  for _, entry in ipairs(entries) do
    if entry.term == term then
      if plain_only then return pandoc.Span(inlines_of(term)) end
      return pandoc.Link(inlines_of(term), "#term-" .. entry.slug, "", pandoc.Attr("", { "tl-see" }))
    end
  end
  error("book/glossary.yml: no entry is called " .. term)
end

local function line(entry, known)
  local home, where = known[entry.chapter], pandoc.List({})
  if home then
    local words = inlines_of(home[2])
    local target = here.up .. home[1] .. "#word-" .. entry.slug
    where:insert(plain_only and pandoc.Span(words) or pandoc.Link(words, target, "", pandoc.Attr("", { "tl-home" })))
  end
  if #entry.see > 0 then
    where:extend({ pandoc.Str("."), pandoc.Space(), pandoc.Str("See"), pandoc.Space(), pandoc.Str("also"), pandoc.Space() })
    where:extend(joined(entry.see:map(to_entry), { pandoc.Str(","), pandoc.Space() }))
  end
  where:insert(pandoc.Str("."))
  local used = { [entry.term] = true }
  local definition = pandoc.Inlines(entry.definition):clone()
  if not plain_only then
    definition = mark_inlines(definition, function(other)
      if used[other.term] then return nil end
      used[other.term] = true
      return ""
    end)
  end
  return { pandoc.Para(definition), pandoc.Plain({ pandoc.Span(where, pandoc.Attr("", { "tl-where" })) }) }
end

local function glossary()
  local known, lines = chapters(), pandoc.List({})
  for _, entry in ipairs(entries) do
    local name = plain_only and "" or "term-" .. entry.slug
    lines:insert({ entry.term, pandoc.Span(inlines_of(entry.term), pandoc.Attr(name)), line(entry, known) })
    for _, short in ipairs(short_names(entry)) do
      local see = pandoc.List({ pandoc.Str("See"), pandoc.Space(), to_entry(entry.term), pandoc.Str(".") })
      lines:insert({ short, pandoc.Span(short), { pandoc.Plain(see) } })
    end
  end
  lines:sort(function(a, b) return a[1]:lower() < b[1]:lower() end)
  local blocks, letters, letter = pandoc.List({}), pandoc.List({}), nil
  for _, item in ipairs(lines) do
    local first = item[1]:sub(1, 1):upper()
    if first ~= letter then
      letter = first
      local about = pandoc.Attr("letter-" .. first:lower(), { "unnumbered", "unlisted" })
      letters:insert(pandoc.Link(first, "#letter-" .. first:lower()))
      blocks:insert(pandoc.Header(2, first, about))
      blocks:insert(pandoc.DefinitionList({}))
    end
    local list = blocks[#blocks]
    list.content = pandoc.List(list.content) .. { { pandoc.Inlines({ item[2] }), { pandoc.Blocks(item[3]) } } }
    blocks[#blocks] = list
  end
  local row = pandoc.Div({ pandoc.Plain(joined(letters, { pandoc.Space() })) }, pandoc.Attr("", { "tl-letters" }))
  local screen = pandoc.Attr("", { "content-visible" }, { ["when-format"] = "html" })
  blocks:insert(1, pandoc.Div({ row }, screen))
  return blocks
end

function Pandoc(doc)
  local source = find_here(doc.meta)
  doc.meta["chapter-source"] = nil
  if source == PAGE or plain_only then
    doc.blocks = doc.blocks:walk({
      Div = function(div)
        if div.classes:includes("glossary-entries") then
          div.content = glossary()
          return div
        end
      end,
    })
  elseif here.chapter ~= "" then
    doc.blocks = mark_chapter(doc.blocks)
  end
  if quarto and quarto.doc.is_format("html") then
    local script = { path = "../theme/glossary.js", afterBody = true }
    quarto.doc.add_html_dependency({ name = "glossary", version = "1", scripts = { script } })
  end
  return doc
end
