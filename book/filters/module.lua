-- A chapter that exports a module says which, as its first line.
function Pandoc(doc)
  local module = doc.meta.module
  if not module then return nil end
  local path = pandoc.utils.stringify(module)
  local line = pandoc.Plain({ pandoc.Str("The code of this chapter is"), pandoc.Space(), pandoc.Code(path) })
  doc.blocks:insert(1, pandoc.Div({ line }, pandoc.Attr("", { "chapter-module" })))
  return doc
end
