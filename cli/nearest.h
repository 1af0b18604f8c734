// "Did you mean".
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace assay {

// The candidate a mistyped `word` most likely stands for; empty if none is near (about a third of it may be wrong).
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace assay
