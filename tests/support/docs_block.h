// Parts of docs/*.md that are made from tables of the code. Such a part stands between two lines,
//
//   <!-- failure reasons: made by ./run docs -->
//   <!-- end of failure reasons -->
//
// and a test of tests/docs compares it with what the code says today. With ASSAY_WRITE_DOCS=1 in its environment
// (`./run docs`) the test writes the part instead.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay {

// What is wrong with the block `name` of a file ("docs/spec.md"), and what to do; empty if its lines are `expected`, or
// are so now. `expected` ends with a line break.
std::string docs_block_problem(const std::string& file, const std::string& name, const std::string& expected);

// A Markdown table; cells are Markdown already.
std::string docs_table(std::span<const std::string_view> titles, std::span<const std::vector<std::string>> rows);

}  // namespace assay
