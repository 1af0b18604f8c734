// Checkpoints of a run: <folder>/step_000123/{weights,optimizer,state}.safetensors and
// <folder>/step_000123/manifest.json, which is published last (fsync of every file, then rename) and holds the scalars,
// and the sizes and CRC-32s of the files and of itself. The folder is called step_000123.tmp until all of that is on
// the disk. A folder without a whole, matching manifest is not a checkpoint: a kill at any byte of a save leaves the
// previous one usable.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/checkpoint/safetensors.h"

namespace assay {

// Whose checkpoints count in a folder. Another run may have left some there: a queue whose database was deleted, or
// replaced by an older copy, gives its runs the folders of those that it does not know any longer. Such checkpoints are
// neither resumed nor removed, nor counted among those that are kept.
struct CheckpointOwner {
  std::string attempt;               // who saves; empty = nobody asks, every checkpoint of the folder counts
  std::vector<std::string> earlier;  // whose checkpoints it continues and supersedes
  bool owns(const std::string& saved_by) const;
};

struct CheckpointContent {
  CheckpointOwner owner;             // its attempt is the manifest's "saved_by"
  int64_t step = 0;                  // the next step to run
  std::string config_hash;           // resume under another config is refused
  std::vector<NamedTensor> weights;  // FP32 master
  std::vector<NamedTensor> optimizer;
  std::vector<NamedTensor> state;              // router bias, FP8 scales
  std::map<std::string, std::string> scalars;  // loader cursor, RNG state, anything small; exact text
};

// Saves and then removes all but the newest `keep` (at least 1) whole checkpoints, and those of this or a later step:
// they are damaged, or left by a course of training that this save supersedes. Returns the folder of the new one, which
// is step_000123.2 if step_000123 was there. Throws EngineError(internal) that names the path (disk full), having
// changed nothing.
std::string save_checkpoint(const std::string& folder, const CheckpointContent&, int keep = 2);

struct LoadedCheckpoint {
  std::string folder;
  int64_t step = 0;
  std::string config_hash;
  SafetensorsFile weights, optimizer, state;
  std::map<std::string, std::string> scalars;
};
// The owner's newest checkpoint whose manifest and files check out; others' and damaged ones are skipped with a line in
// `notes`.
std::optional<LoadedCheckpoint> load_newest_checkpoint(const std::string& folder, std::vector<std::string>* notes,
                                                       const CheckpointOwner& owner = {});

}  // namespace assay
