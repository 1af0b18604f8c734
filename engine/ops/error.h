// Typed engine errors. The engine throws these and nothing else; worker/trainer turns them into an AttemptOutcome.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "spec/run_outcome.h"

namespace assay {

class EngineError : public std::runtime_error {
 public:
  EngineError(FailureReason reason, const std::string& message, std::string operation = {}, std::string tensor = {},
              int64_t step = -1)
      : std::runtime_error(message),
        reason(reason),
        operation(std::move(operation)),
        tensor(std::move(tensor)),
        step(step) {}

  FailureReason reason;
  std::string operation;
  std::string tensor;
  int64_t step;
};

// Throws EngineError(internal) that carries the op, the place and the message. For contract violations between the
// model and an op (shape, dtype): never for user input, which the plan has checked.
[[noreturn]] void fail_op(const char* op, const char* file, int line, const std::string& message);

}  // namespace assay

#define ASSAY_OP_CHECK(op, condition, message)                           \
  do {                                                                   \
    if (!(condition)) ::assay::fail_op(op, __FILE__, __LINE__, message); \
  } while (0)
