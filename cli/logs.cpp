// `assay logs RUN`: the raw log of an attempt, followed with -f.
#include <fmt/core.h>

#include "base/limits.h"
#include "cli/change.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/run_rows.h"
#include "cli/units.h"
#include "cli/verb.h"

namespace assay {
namespace {

constexpr int64_t poll_ms = 300;

struct Options {
  std::string run;
  bool follow = false;
  int64_t attempt = 0;
  int64_t last_bytes = 0;
};

void print(Context& context, const v1::TailLogResponse& chunk, int64_t offset) {
  if (chunk.data().empty()) return;
  if (context.json)
    print_json(context, {{"attempt", chunk.attempt()}, {"offset", offset}, {"data", chunk.data()}});
  else
    context.console.out << chunk.data();  // raw: the bytes of the trainer, colours and all
  context.console.out.flush();
}

Result<ExitCode> run_logs(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::GetRunRequest named;
  named.set_name(options.run);
  ASSAY_ASSIGN(const v1::Run run, client.call(&Rpc::GetRun, named));
  v1::TailLogRequest request;
  request.set_name(full_name(run));  // a plain name means another run as soon as a newer experiment has it
  request.set_attempt(options.attempt);
  request.set_offset(options.last_bytes > 0 ? -options.last_bytes : 0);
  request.set_max_bytes(static_cast<int64_t>(limits::log_chunk_bytes));
  while (context.console.out) {
    ASSAY_ASSIGN(const v1::TailLogResponse chunk, client.call(&Rpc::TailLog, request));
    print(context, chunk, chunk.next_offset() - static_cast<int64_t>(chunk.data().size()));
    request.set_offset(chunk.next_offset());
    request.set_attempt(chunk.attempt());  // a retry begins a new log; following stays with the one it began with
    const bool at_end = chunk.next_offset() >= chunk.size() || chunk.data().empty();
    if (!at_end) continue;
    if (!options.follow || !chunk.live()) break;
    context.pause(poll_ms);
  }
  return ExitCode::ok;
}

}  // namespace

void add_logs(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "logs", "Print the log of a run's attempt",
                            "  assay logs moe_fp8_experts_static\n"
                            "  assay logs -f moe_fp8_experts_static      # until the attempt ends\n"
                            "  assay logs moe_fp8_experts_static --attempt 1 --last 10k");
  auto options = std::make_shared<Options>();
  verb->add_option("RUN", options->run, run_name_help)->required();
  verb->add_flag("-f,--follow", options->follow, "Go on as the log grows, until the attempt ends");
  add_count(verb, "--attempt", options->attempt, 1, "Which attempt, from 1 (default: the newest)");
  add_bytes(verb, "--last", options->last_bytes, "Start this much before the end: bytes, or 10k, 1M");
  on_chosen(verb, context, options, run_logs);
}

}  // namespace assay
