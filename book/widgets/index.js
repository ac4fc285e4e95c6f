// Every widget of the book. Each file defines its own element.
import "./tokenizer.js";
