-- The small drawing of the model at the top of a chapter that names its part of it in `part-of-model`:
-- boxes in HTML, each a link to its chapter, and the same boxes in print. Both are made from this list.

local MODEL = {
  name = "loop", chapter = "01_what_is_an_llm", parts = {
    { name = "tokens", chapter = "02_tokens" },
    { name = "model", chapter = "09_full_model", parts = {
      { name = "embedding", chapter = "03_embeddings" },
      { name = "block", chapter = "08_transformer_block", shown = "8 blocks", parts = {
        { name = "attention", chapter = "04_attention" },
        { name = "heads", chapter = "05_multi_head_attention", beside = true },
        { name = "positions", chapter = "06_positional_encoding", beside = true },
        { name = "MLP", chapter = "07_mlp_block" },
      } },
      { name = "output head", chapter = "03_embeddings" },
    } },
    { name = "sampling", chapter = "10_sampling" },
  },
}
local WORDS = "Where this chapter stands in the model: %s. In a loop, text becomes tokens; the model turns them "
  .. "into scores by an embedding, 8 blocks of attention and MLP, and an output head; sampling picks the next token."

local function known(part, lit)
  local found = part.name == lit
  for _, inner in ipairs(part.parts or {}) do found = known(inner, lit) or found end
  return found
end

local function inside(part, lit, draw, arrow)
  local drawn = pandoc.List({})
  for i, inner in ipairs(part.parts) do
    if i > 1 and not inner.beside then drawn:insert(arrow) end
    drawn:insert(draw(inner, lit))
  end
  return drawn
end

local function html(part, lit)
  local here = part.name == lit and ' aria-current="true"' or ""
  local link = string.format('<a href="%s.html"%s>%s</a>', part.chapter, here, part.shown or part.name)
  if not part.parts then return link end
  return "<span>" .. link .. table.concat(inside(part, lit, html, "<i>→</i>")) .. "</span>"
end

local function typst(part, lit)
  local about = string.format('"%s", lit: %s', part.shown or part.name, part.name == lit)
  if not part.parts then return "model-part(" .. about .. ")" end
  return "model-frame(" .. about .. ", " .. table.concat(inside(part, lit, typst, "[→]"), ", ") .. ")"
end

function Pandoc(doc)
  if not doc.meta["part-of-model"] then return nil end
  local lit = pandoc.utils.stringify(doc.meta["part-of-model"])
  if not known(MODEL, lit) then error("part-of-model: the model has no part called " .. lit) end
  local words = WORDS:format(lit)
  local web = pandoc.RawBlock("html", '<nav class="model-map" aria-label="' .. words .. '">' .. html(MODEL, lit) .. "</nav>")
  doc.blocks:insert(1, pandoc.RawBlock("typst", "#model-map(" .. typst(MODEL, lit) .. ")"))
  -- the press makes pages and print of one tree
  local only = pandoc.Attr("", { "content-visible" }, { ["when-format"] = "html" })
  doc.blocks:insert(1, quarto and web or pandoc.Div({ web }, only))
  return doc
end
