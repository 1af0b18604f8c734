#include "worker/messages.h"

#include <array>

namespace assay {

std::string_view to_string(EventKind kind) {
  constexpr std::array<std::string_view, 5> words = {"started", "resumed", "stopping", "ended", "refused"};
  return words[static_cast<size_t>(kind)];
}

}  // namespace assay
