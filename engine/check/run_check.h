// Whether a run can be computed: all that its config, its corpus and its device decide, before anything is allocated.
// `assay plan`, `assay enqueue` and the trainer ask the same function, so that what the trainer would refuse is refused
// before it is queued, in the same words.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/corpus_check.h"
#include "spec/run_config.h"
#include "spec/run_outcome.h"

namespace assay {

// What a run gets one or more of. Sizes are in bytes of one device, 0 = not known.
struct DeviceOffer {
  Backend backend = Backend::cpu;  // never automatic
  int64_t memory_bytes = 0;
  int64_t available_bytes = 0;  // at the moment, without swapping
};

struct RunProblem {
  FailureReason reason = FailureReason::none;  // what the run would end with
  std::string message;
};

struct RunCheck {
  int64_t parameters = 0;
  double peak_mem_mib = 0;
  double mflop_per_token = 0;
  std::optional<RunProblem> problem;  // the first that was found
  // Of a run without problem: it fits the device, but not what is available of it at the moment. A trainer that is to
  // start now must not.
  std::optional<RunProblem> shortage;
  std::vector<std::string> warnings;  // it can run, but hardly as it was meant
};

// Remembers what several runs share: corpora by path, plans by what determines them.
class RunChecker {
 public:
  // `plan_key`: equal for configs with equal plans; empty = not remembered.
  RunCheck check(const RunConfig&, const DeviceOffer&, const std::string& plan_key = {});

  // Those that were looked at, in the order of their paths.
  std::vector<std::string> describe_corpora() const;

 private:
  struct Planned {
    int64_t parameters = 0;
    double peak_mem_mib = 0;
    double mflop_per_token = 0;
    std::optional<RunProblem> problem;
  };
  static Planned plan(const RunConfig&, Backend);
  std::optional<RunProblem> data_problem(const RunConfig&);

  std::map<std::string, Result<CorpusFacts>> corpora_;
  std::map<std::string, Planned> plans_;
};

// "CPU device", "GPU"
std::string_view device_word(Backend);

}  // namespace assay
