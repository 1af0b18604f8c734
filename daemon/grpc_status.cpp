#include "daemon/grpc_status.h"

#include <string>

#include "base/utf8.h"

namespace assay {
namespace {

// A status message travels percent-encoded in a trailer; gRPC peers refuse more than 8 KiB of those. 2,400 bytes stay
// below that even if every byte is encoded as three.
constexpr size_t message_chars = 2'400;

grpc::StatusCode code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case ErrorCode::not_found:
      return grpc::StatusCode::NOT_FOUND;
    case ErrorCode::already_exists:
      return grpc::StatusCode::ALREADY_EXISTS;
    case ErrorCode::failed_precondition:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case ErrorCode::resource_exhausted:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case ErrorCode::permission_denied:
      return grpc::StatusCode::PERMISSION_DENIED;
    case ErrorCode::unavailable:
      return grpc::StatusCode::UNAVAILABLE;
    case ErrorCode::data_loss:
      return grpc::StatusCode::DATA_LOSS;
    case ErrorCode::aborted:
      return grpc::StatusCode::ABORTED;
    case ErrorCode::internal:
      return grpc::StatusCode::INTERNAL;
  }
  return grpc::StatusCode::INTERNAL;
}

}  // namespace

grpc::Status to_grpc(const Error& error) {
  if (error.message.size() <= message_chars) return {code_of(error.code), to_utf8(error.message)};
  const size_t cut = error.message.rfind('\n', message_chars);
  const std::string_view kept = cut_end(error.message, cut == std::string::npos ? message_chars : cut);
  return {code_of(error.code), to_utf8(kept) + "\n... and more"};
}

}  // namespace assay
