-- Quick checks: a question with a few answers, then a folded "Answer" that says of each which mistake it is.
--
-- On a page each answer unfolds (`details`, so by keyboard, by touch and without scripts) into right or
-- wrong and its reason. In print the answers stand together at the chapter's end, and spoil nothing.

local on_page = not quarto or FORMAT:match("html") ~= nil -- the press makes pages and print of one tree
local in_print = not quarto or not on_page
local count = 0

local function only(where, blocks)
  if quarto then return pandoc.Div(blocks) end
  return pandoc.Div(blocks, pandoc.Attr("", { "content-visible" }, { [where .. "-format"] = "html" }))
end

local function letter(inline)
  return inline and inline.t == "Strong" and pandoc.utils.stringify(inline):match("^(%u)%.?$") or nil
end

local function question(block)
  local first = block.t == "Para" and block.content[1]
  return first and first.t == "Strong" and pandoc.utils.stringify(first):match("^Quick check") ~= nil
end

local function choices(block)
  return block and block.t == "BulletList" and block.content:find_if(function(item)
    return not (item[1] and letter(item[1].content and item[1].content[1]))
  end) == nil
end

-- The paragraphs of the answer, however the callout is kept.
local function paragraphs(block)
  if not (block and block.t == "Div") then return nil end
  local custom = block.attributes.__quarto_custom_type == "Callout"
  if not (custom or block.classes:includes("callout-tip")) then return nil end
  local found = pandoc.Blocks({})
  block:walk({ Para = function(para) found:insert(para) end })
  return found[1] and letter(found[1].content[1]) and found or nil
end

-- {letter: what the answer says of it}: a piece begins at a letter that begins a sentence.
local function reasons(inlines)
  local pieces, piece = {}, nil
  for i, inline in ipairs(inlines) do
    local before = inlines[i - 2]
    local begins = i == 1 or (before and before.t == "Str" and before.text:match("[.!?)”]$") ~= nil) or letter(before)
    if letter(inline) and begins then
      piece = pandoc.Inlines({})
      table.insert(pieces, piece)
    end
    piece:insert(inline)
  end
  local about = {}
  for _, found in ipairs(pieces) do
    for _, inline in ipairs(found) do
      local name = letter(inline)
      if name then about[name] = about[name] or found end
    end
  end
  return about
end

-- A reason that is said twice on the page marks words of the glossary once.
local function without_terms(inlines)
  return pandoc.Inlines(inlines):walk({
    Link = function(link)
      if link.classes:includes("tl-term") then return link.content end
    end,
    Span = function(span) return span.content end,
  })
end

-- What is pressed holds no links; a place that the glossary leads back to stays one.
local function without_links(inlines)
  return pandoc.Inlines(inlines):walk({
    Link = function(link)
      return link.identifier == "" and link.content or pandoc.Span(link.content, pandoc.Attr(link.identifier))
    end,
  })
end

local function html(text) return pandoc.RawBlock("html", text) end

local function choice(item, right, about, whole)
  local name = letter(item[1].content[1])
  local label = pandoc.Inlines({ table.unpack(item[1].content, 2) })
  local verdict, body = "Right.", whole
  if name ~= right then
    verdict = "No."
    body = about[name] and pandoc.Blocks({ pandoc.Para(without_terms(about[name])) }) or whole
  end
  body = body:clone()
  local first = pandoc.List(body[1].content)
  if name == right then first = pandoc.List({ table.unpack(first, 2) }) end -- its letter stands above
  body[1] = pandoc.Para(pandoc.List({ pandoc.Strong(verdict), pandoc.Space() }) .. first)
  local head = pandoc.List({ pandoc.Span({ pandoc.Str(name) }, pandoc.Attr("", { "letter" })), pandoc.Space() })
  local open = '<details name="check-%d" class="%s"><summary>'
  return {
    html(open:format(count, name == right and "right" or "wrong")),
    pandoc.Plain(head .. { pandoc.Span(without_links(label)) }),
    html("</summary>"),
    pandoc.Div(body, pandoc.Attr("", { "reason" })),
    html("</details>"),
  }
end

local function check(asked, list, answer)
  count = count + 1
  local right, about = letter(answer[1].content[1]), reasons(answer[1].content)
  local blocks = pandoc.Blocks({ asked })
  if on_page then
    local inner = pandoc.Blocks({})
    for _, item in ipairs(list.content) do inner:extend(choice(item, right, about, answer)) end
    blocks:insert(only("when", inner))
  end
  if in_print then blocks:insert(only("unless", { list })) end
  return pandoc.Div(blocks, pandoc.Attr("", { "quick-check" }))
end

function Pandoc(doc)
  local out, answers, i = pandoc.Blocks({}), pandoc.Blocks({}), 1
  while doc.blocks[i] do
    local block, list, at = doc.blocks[i], doc.blocks[i + 1], i + 2
    local function marker(b) return b and b.t == "RawBlock" and b.format == "press" end
    if marker(list) then list, at = doc.blocks[i + 2], i + 3 end
    local answer = question(block) and choices(list) and paragraphs(doc.blocks[at])
    if answer then
      out:insert(check(block, list, answer))
      local title = pandoc.utils.stringify(block.content[1]):gsub("%.$", "")
      local first = pandoc.List({ pandoc.Str(title .. ":"), pandoc.Space() })
      answers:insert(pandoc.Para(first .. answer[1].content))
      for k = 2, #answer do answers:insert(answer[k]) end
      i = at + 1
    else
      out:insert(block)
      i = i + 1
    end
  end
  if count == 0 then return nil end
  if in_print then
    out:insert(only("unless", pandoc.Blocks({ pandoc.Para({ pandoc.Strong("Answers to the quick checks") }) }) .. answers))
  end
  doc.blocks = out
  return doc
end
