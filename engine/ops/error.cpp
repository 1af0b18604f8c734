#include "engine/ops/error.h"

#include <string_view>

namespace assay {

void fail_op(const char* op, const char* file, int line, const std::string& message) {
  const std::string_view path(file);
  const size_t slash = path.rfind("engine/");
  const std::string place =
      std::string(slash == std::string_view::npos ? path : path.substr(slash)) + ":" + std::to_string(line);
  throw EngineError(FailureReason::internal, std::string(op) + ": " + message + " (" + place + ")", op);
}

}  // namespace assay
