#include "cli/client.h"

#include <fmt/core.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "base/home.h"
#include "base/limits.h"
#include "base/utf8.h"

namespace assay {

namespace {

namespace pb = google::protobuf;

// What was typed may hold any bytes; protobuf would refuse such a request, and call it an error of its own.
Status check_text(const pb::Message& request) {
  const pb::Reflection& reflection = *request.GetReflection();
  std::vector<const pb::FieldDescriptor*> fields;
  reflection.ListFields(request, &fields);
  const auto check = [](const std::string& text) {
    if (is_utf8(text)) return Status();
    return Status(Error{ErrorCode::invalid_argument, fmt::format("{} is not UTF-8", in_quotes(text))});
  };
  for (const pb::FieldDescriptor* field : fields) {
    const bool message = field->cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE;
    if (!message && field->type() != pb::FieldDescriptor::TYPE_STRING) continue;
    if (!field->is_repeated()) {
      ASSAY_TRY(message ? check_text(reflection.GetMessage(request, field))
                        : check(reflection.GetString(request, field)));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(request, field); ++i)
      ASSAY_TRY(message ? check_text(reflection.GetRepeatedMessage(request, field, i))
                        : check(reflection.GetRepeatedString(request, field, i)));
  }
  return {};
}

Error not_running(const std::string& home) {
  return {ErrorCode::unavailable, fmt::format("no daemon is running for {}; start it with: assay up", home)};
}

ErrorCode error_code(grpc::StatusCode code) {
  switch (code) {
    case grpc::INVALID_ARGUMENT:
    case grpc::OUT_OF_RANGE:
      return ErrorCode::invalid_argument;
    case grpc::NOT_FOUND:
      return ErrorCode::not_found;
    case grpc::ALREADY_EXISTS:
      return ErrorCode::already_exists;
    case grpc::FAILED_PRECONDITION:
      return ErrorCode::failed_precondition;
    case grpc::RESOURCE_EXHAUSTED:
      return ErrorCode::resource_exhausted;
    case grpc::PERMISSION_DENIED:
    case grpc::UNAUTHENTICATED:
      return ErrorCode::permission_denied;
    case grpc::UNAVAILABLE:
    case grpc::DEADLINE_EXCEEDED:
    case grpc::CANCELLED:
      return ErrorCode::unavailable;
    case grpc::DATA_LOSS:
      return ErrorCode::data_loss;
    case grpc::ABORTED:
      return ErrorCode::aborted;
    default:
      return ErrorCode::internal;
  }
}

}  // namespace

struct Client::State {
  std::string home;
  std::string socket;
  std::unique_ptr<v1::QueueService::Stub> stub;

  Error error(const grpc::Status& status) const;
};

Error Client::State::error(const grpc::Status& status) const {
  switch (status.error_code()) {
    case grpc::UNAVAILABLE: {
      // The socket file outlives a daemon that was killed: gRPC then says why it could not connect, which helps nobody.
      const bool no_answer = status.error_message().find("onnect") != std::string::npos ||
                             status.error_message().find("ocket closed") != std::string::npos;
      if (no_answer) return not_running(home);
      break;
    }
    case grpc::DEADLINE_EXCEEDED:
      return {ErrorCode::unavailable,
              fmt::format("the daemon at {} did not answer in time; its log is {}", socket, daemon_log_path(home))};
    case grpc::UNIMPLEMENTED:
      return {ErrorCode::internal, fmt::format("the daemon at {} is of another version and does not know this request; "
                                               "restart it with: assay down --keep-running && assay up",
                                               socket)};
    default:
      break;
  }
  return {error_code(status.error_code()), status.error_message()};
}

Client::Client(std::unique_ptr<State> state) : state_(std::move(state)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

Result<Client> Client::connect(const std::string& home) {
  ASSAY_ASSIGN(std::string socket, socket_path(home));
  struct stat info {};
  if (::stat(socket.c_str(), &info) != 0) {
    if (errno == EACCES)
      return Error{ErrorCode::permission_denied,
                   fmt::format("{}: {}; the daemon there belongs to another user", socket, std::strerror(errno))};
    return not_running(home);
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(limits::message_bytes);
  arguments.SetMaxSendMessageSize(limits::message_bytes);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);  // `watch` outlives a restart of the daemon
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  auto channel = grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
  auto state = std::make_unique<State>();
  state->home = home;
  state->socket = socket;
  state->stub = v1::QueueService::NewStub(channel);
  return Client(std::move(state));
}

Status Client::ask(const pb::Message& request, int64_t deadline_ms,
                   const std::function<grpc::Status(Rpc&, grpc::ClientContext*)>& rpc) {
  ASSAY_TRY(check_text(request));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(deadline_ms));
  if (const grpc::Status status = rpc(*state_->stub, &context); !status.ok()) return state_->error(status);
  return {};
}

Result<v1::ListRunsResponse> Client::list_runs(const v1::ListRunsRequest& request) {
  v1::ListRunsResponse list, more;
  ASSAY_TRY(ask(request, limits::rpc_deadline_ms, [&](Rpc& rpc, grpc::ClientContext* context) {
    const auto reader = rpc.ListRuns(context, request);
    bool first = true;
    while (reader->Read(first ? &list : &more)) {
      if (!std::exchange(first, false)) list.mutable_runs()->MergeFrom(more.runs());
    }
    return reader->Finish();
  }));
  const int64_t expected = request.limit() > 0 ? std::min(request.limit(), list.total()) : list.total();
  if (list.runs_size() != expected)
    return Error{ErrorCode::internal, fmt::format("the daemon listed {} runs where there are {}; its log is {}",
                                                  list.runs_size(), expected, daemon_log_path(state_->home))};
  return list;
}

Status Client::events_since(int64_t from, const std::string& tag, const std::function<void(const v1::Event&)>& each) {
  v1::WatchRequest request;
  request.set_from_event_id(from);
  request.set_tag(tag);
  request.set_follow(false);
  return ask(request, limits::rpc_deadline_ms, [&](Rpc& rpc, grpc::ClientContext* context) {
    const auto reader = rpc.Watch(context, request);
    v1::Event event;
    while (reader->Read(&event)) each(event);
    return reader->Finish();
  });
}

std::string new_request_id() {
  std::random_device random;
  uint32_t word[4];
  for (uint32_t& w : word) w = random();
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{:08x}", word[0], word[1] >> 16, word[1] & 0xfff,
                     0x8000 | (word[2] >> 18), word[2] & 0xffff, word[3]);
}

}  // namespace assay
