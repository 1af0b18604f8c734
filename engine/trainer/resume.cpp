#include "engine/trainer/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/file.h"
#include "base/text.h"
#include "engine/ops/error.h"
#include "spec/run_config_toml.h"

namespace assay {
namespace {

// Everything a checkpoint holds, with the device tensors it comes from.
struct DeviceTensors {
  std::vector<NamedTensor> weights, optimizer, state;
};

DeviceTensors device_tensors(Model& model) {
  DeviceTensors t;
  for (const Weight& w : model.weights().all()) {
    t.weights.push_back({w.spec.name, w.master});
    t.optimizer.push_back({"moment1." + w.spec.name, w.moment1});
    t.optimizer.push_back({"moment2." + w.spec.name, w.moment2});
  }
  for (const auto& [name, tensor] : model.state()) t.state.push_back({name, tensor});
  return t;
}

// The same tensors in host memory that `storage` owns.
std::vector<NamedTensor> to_host(const std::vector<NamedTensor>& device, Ops& ops,
                                 std::vector<std::vector<char>>& storage) {
  std::vector<NamedTensor> host = device;
  for (NamedTensor& t : host) {
    std::vector<char>& bytes = storage.emplace_back(t.tensor.bytes());
    ops.copy_to_host(bytes.data(), t.tensor.data, bytes.size());
    t.tensor.data = bytes.data();
  }
  return host;
}

void to_device(const SafetensorsFile& file, const std::vector<NamedTensor>& device, const std::string& folder,
               Ops& ops) {
  for (const NamedTensor& t : device) {
    const Tensor* found = file.find(t.name);
    if (found == nullptr || found->bytes() != t.tensor.bytes() || found->dtype != t.tensor.dtype)
      throw EngineError(
          FailureReason::internal,
          fmt::format("checkpoint {}: tensor {} is {}, expected {}; start with an empty checkpoint folder", folder,
                      t.name, found == nullptr ? "missing" : found->describe(), t.tensor.describe()),
          "resume", t.name);
    ops.copy_to_device(t.tensor.data, found->data, found->bytes());
  }
}

int64_t read_scalar(const LoadedCheckpoint& checkpoint, const std::string& name) {
  const auto found = checkpoint.scalars.find(name);
  const std::string text = found == checkpoint.scalars.end() ? "" : found->second;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw EngineError(
        FailureReason::internal,
        fmt::format("checkpoint {}: \"{}\" is \"{}\", expected a whole number", checkpoint.folder, name, text),
        "resume", name);
  return value;
}

constexpr std::string_view corpus_key = "corpus/";  // a shard's name follows

CorpusIdentity read_corpus(const LoadedCheckpoint& checkpoint) {
  CorpusIdentity corpus;
  for (const auto& [key, value] : checkpoint.scalars)
    if (key.starts_with(corpus_key)) corpus[key.substr(corpus_key.size())] = value;
  return corpus;
}

// One entry for each shard that is not as it was.
std::vector<std::string> changes_of(const CorpusIdentity& before, const CorpusIdentity& now) {
  std::vector<std::string> changes;
  for (const auto& [name, was] : before) {
    const auto found = now.find(name);
    if (found == now.end())
      changes.push_back(name + " is gone");
    else if (found->second != was)
      changes.push_back(fmt::format("{} is another ({}, was {})", name, found->second, was));
  }
  for (const auto& [name, is] : now)
    if (!before.contains(name)) changes.push_back(name + " is new");
  return changes;
}

void check_corpus(const std::string& folder, const RunConfig& config, const LoadedCheckpoint& checkpoint,
                  const CorpusIdentity& now, std::vector<std::string>& notes) {
  const CorpusIdentity before = read_corpus(checkpoint);
  if (before.empty()) {
    notes.push_back(
        fmt::format("checkpoint {} does not say which text it has seen (an older program saved it): make "
                    "sure that {} still holds the same",
                    checkpoint.folder, config.data.path));
    return;
  }
  const std::vector<std::string> changes = changes_of(before, now);
  if (changes.empty()) return;
  constexpr size_t shown = 3;
  throw EngineError(FailureReason::data_error,
                    fmt::format("checkpoint {} has seen other text than {} holds now: {}. To go on, put that text "
                                "back (the same text and options of `assay data prepare` give the same shards); to "
                                "train on the new text from step 0, remove the folder {}",
                                checkpoint.folder, config.data.path, first_of(changes, shown), folder),
                    "resume");
}

}  // namespace

std::string resume_hash(const RunConfig& config) {
  RunConfig same = config;
  same.fault = {};
  same.train.timeout_s = 0;
  return sha256_hex(canonical_text(same));
}

std::string save_run(const std::string& folder, const CheckpointOwner& owner, const RunConfig& config, DeviceRun& run,
                     Ops& ops, int64_t next_step, const DataState& data) {
  const DeviceTensors device = device_tensors(run.model());
  std::vector<std::vector<char>> storage;
  storage.reserve(device.weights.size() + device.optimizer.size() + device.state.size());
  CheckpointContent content;
  content.owner = owner;
  content.step = next_step;
  content.config_hash = resume_hash(config);
  content.weights = to_host(device.weights, ops, storage);
  content.optimizer = to_host(device.optimizer, ops, storage);
  content.state = to_host(device.state, ops, storage);
  content.scalars["loader.position"] = std::to_string(data.cursor.position);
  content.scalars["loader.epoch"] = std::to_string(data.cursor.epoch);
  content.scalars["backend"] = to_string(run.backend());
  for (const auto& [name, value] : data.corpus) content.scalars[std::string(corpus_key) + name] = value;
  content.scalars["static.capacity"] = std::to_string(run.plan().static_capacity);
  content.scalars["static.recaptures"] = std::to_string(run.recaptures());
  return save_checkpoint(folder, content);
}

std::optional<ResumePoint> load_run(const std::string& folder, const CheckpointOwner& owner, const RunConfig& config,
                                    DeviceRun& run, Ops& ops, const CorpusIdentity& corpus,
                                    std::vector<std::string>& notes) {
  const std::optional<LoadedCheckpoint> found = load_newest_checkpoint(folder, &notes, owner);
  if (!found) return std::nullopt;
  if (found->config_hash != resume_hash(config))
    throw EngineError(FailureReason::config_invalid,
                      fmt::format("checkpoint {} belongs to another config; restore that config, or start afresh with "
                                  "another checkpoint folder or without resume",
                                  found->folder),
                      "resume");
  check_corpus(folder, config, *found, corpus, notes);
  const auto backend = found->scalars.find("backend");
  if (backend != found->scalars.end() && backend->second != to_string(run.backend()))
    notes.push_back(
        fmt::format("checkpoint {} was saved on the {} backend and goes on on the {} backend: losses are not "
                    "what one backend alone would give, to the last bits",
                    found->folder, backend->second, to_string(run.backend())));
  run.take_over_capacity(read_scalar(*found, "static.capacity"),
                         static_cast<int>(read_scalar(*found, "static.recaptures")));
  const DeviceTensors device = device_tensors(run.model());
  to_device(found->weights, device.weights, found->folder, ops);
  to_device(found->optimizer, device.optimizer, found->folder, ops);
  to_device(found->state, device.state, found->folder, ops);
  return ResumePoint{
      found->step, {read_scalar(*found, "loader.position"), read_scalar(*found, "loader.epoch")}, found->folder};
}

}  // namespace assay
