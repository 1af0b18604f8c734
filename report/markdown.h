// Foreign text in Markdown (GitHub's dialect): names, errors and logs must not become markup.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace assay {

// Plain text for a paragraph or a table cell: markup characters are escaped, line breaks become spaces, control
// characters and bytes that are not UTF-8 become visible escapes ("\x1b").
std::string md_text(std::string_view text);
// A code span. `in_table`: pipes are escaped too, which GitHub undoes inside the span.
std::string md_code(std::string_view text, bool in_table = false);
// A fenced block whose fence is longer than any run of backticks in `text`, so that nothing in it can end it.
std::string md_fence(std::string_view text);

// One line of a table. The cells are Markdown already.
std::string md_row(const std::vector<std::string>& cells);
// Titles and the rule below them; 'l' and 'r' per column in `alignment`.
std::string md_header(const std::vector<std::string>& titles, std::string_view alignment);

}  // namespace assay
