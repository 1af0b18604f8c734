// A run as a checkpoint, and back. Resuming continues bit for bit.
#pragma once

#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/data/loader.h"
#include "engine/trainer/device_run.h"

namespace assay {

// Equal for configs that may continue each other's checkpoints: everything but the fault hook and the time limit.
std::string resume_hash(const RunConfig&);

// Where a run stands in its text, and which text that is.
struct DataState {
  LoaderCursor cursor;
  CorpusIdentity corpus;
};

// Copies weights, optimizer and state to the host and saves them. Returns the new checkpoint's folder.
std::string save_run(const std::string& folder, const CheckpointOwner&, const RunConfig&, DeviceRun&, Ops&,
                     int64_t next_step, const DataState&);

struct ResumePoint {
  int64_t next_step = 0;
  LoaderCursor cursor;
  std::string folder;
};
// Into the run's model, grown to the static capacity it had. Nothing if the folder has no whole checkpoint of the
// owner; damaged ones and others' are named in `notes`, and so is one that another backend saved, or that does not say
// which text it has seen. Throws EngineError(config_invalid) if the newest belongs to another config,
// EngineError(data_error) if it has seen other text than `corpus`.
std::optional<ResumePoint> load_run(const std::string& folder, const CheckpointOwner&, const RunConfig&, DeviceRun&,
                                    Ops&, const CorpusIdentity& corpus, std::vector<std::string>& notes);

}  // namespace assay
