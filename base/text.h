// Pieces of sentences that many rooms write.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace assay {

// "1 run", "3 runs".
std::string plural(int64_t n, std::string_view one);
// The end of a list that goes on: " and 7 more"; nothing for 0.
std::string and_more(size_t n);
// The first few of them: "a, b, c and 7 more".
std::string first_of(std::span<const std::string> texts, size_t shown);
// The first few of them, a line each, and as the last line "... and 7 more".
std::string first_lines(std::span<const std::string> texts, size_t shown);

}  // namespace assay
