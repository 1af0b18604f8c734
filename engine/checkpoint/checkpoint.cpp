#include "engine/checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "engine/ops/error.h"

namespace assay {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int manifest_format = 1;
constexpr const char* manifest_name = "manifest.json";
constexpr const char* weights_name = "weights.safetensors";
constexpr const char* optimizer_name = "optimizer.safetensors";
constexpr const char* state_name = "state.safetensors";
constexpr std::string_view unfinished = ".tmp";

[[noreturn]] void save_failed(const std::string& path, const std::string& why) {
  throw EngineError(FailureReason::internal, fmt::format("cannot save checkpoint {}: {}", path, why));
}

void check(const Status& status, const std::string& path) {
  if (!status.ok()) save_failed(path, status.error().message);
}

// A folder whose name says that it is a checkpoint: step_<step> or, for a step saved again, step_<step>.<revision>.
struct Candidate {
  std::string path;
  int64_t step = 0;
  int64_t revision = 1;
  bool newer_than(const Candidate& other) const {
    return step != other.step ? step > other.step : revision > other.revision;
  }
};

std::string folder_name(int64_t step, int64_t revision) {
  return revision == 1 ? fmt::format("step_{:06}", step) : fmt::format("step_{:06}.{}", step, revision);
}

std::optional<Candidate> parse_candidate(const fs::path& path) {
  const std::string name = path.filename().string();
  Candidate found{path.string()};
  if (!name.starts_with("step_")) return std::nullopt;
  const char* end = name.data() + name.size();
  auto [at, failure] = std::from_chars(name.data() + 5, end, found.step);
  if (failure != std::errc{}) return std::nullopt;
  if (at != end && *at == '.') std::from_chars(at + 1, end, found.revision);
  if (name != folder_name(found.step, found.revision)) return std::nullopt;
  return found;
}

struct Listing {
  std::vector<Candidate> candidates;    // newest first
  std::vector<std::string> unfinished;  // left by a save or a removal that was cut short
};

Listing list_folder(const std::string& folder) {
  Listing listing;
  std::error_code failure;
  fs::directory_iterator entries(folder, failure);
  if (failure == std::errc::no_such_file_or_directory) return listing;
  for (; !failure && entries != fs::directory_iterator(); entries.increment(failure)) {
    const std::string name = entries->path().filename().string();
    if (auto candidate = parse_candidate(entries->path())) listing.candidates.push_back(*candidate);
    if (name.starts_with("step_") && name.ends_with(unfinished)) listing.unfinished.push_back(entries->path().string());
  }
  if (failure)
    throw EngineError(FailureReason::internal,
                      fmt::format("cannot read checkpoint folder {}: {}", folder, failure.message()));
  std::sort(listing.candidates.begin(), listing.candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.newer_than(b); });
  return listing;
}

// The manifest carries a CRC-32 of its own canonical text, so that a changed scalar cannot pass for a saved one.
uint32_t manifest_crc(json manifest) {
  manifest.erase("crc32");
  return crc32(manifest.dump());
}

std::string make_manifest(const CheckpointContent& content, const std::map<std::string, WrittenFile>& files) {
  json manifest = {{"format", manifest_format},
                   {"step", content.step},
                   {"saved_by", content.owner.attempt},
                   {"config_hash", content.config_hash},
                   {"scalars", content.scalars}};
  for (const auto& [name, file] : files) manifest["files"][name] = {{"bytes", file.bytes}, {"crc32", file.crc32}};
  manifest["crc32"] = manifest_crc(manifest);
  return manifest.dump(2) + "\n";
}

json read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + manifest_name;
  const auto text = read_file(path, limits::checkpoint_manifest_bytes);
  if (!text.ok()) throw EngineError(FailureReason::data_error, text.error().message);
  json manifest = json::parse(*text);
  if (manifest.at("crc32") != manifest_crc(manifest))
    throw EngineError(FailureReason::data_error, path + " does not match its own CRC-32");
  if (manifest.at("format") != manifest_format)
    throw EngineError(FailureReason::data_error, fmt::format("{} has format {}, this program reads {}", path,
                                                             manifest.at("format").dump(), manifest_format));
  return manifest;
}

SafetensorsFile read_checked(const std::string& folder, const char* name, const json& manifest) {
  const std::string path = folder + "/" + name;
  const json& expected = manifest.at("files").at(name);
  SafetensorsFile file = read_safetensors(path);
  const std::string_view bytes(file.storage.data(), file.storage.size());
  if (expected.at("bytes") != bytes.size() || expected.at("crc32") != crc32(bytes))
    throw EngineError(FailureReason::data_error, path + " does not match the size and CRC-32 in the manifest");
  return file;
}

// "": saved by a trainer that was started by hand, or by one of a version that did not tell.
std::string saved_by(const json& manifest) {
  return manifest.value("saved_by", "");
}

LoadedCheckpoint load(const Candidate& candidate, const CheckpointOwner& owner) {
  const json manifest = read_manifest(candidate.path);
  if (const std::string saver = saved_by(manifest); !owner.owns(saver))
    throw EngineError(FailureReason::data_error,
                      fmt::format("it is no checkpoint of this run: {}; it stays where it is",
                                  saver.empty() ? "it does not say which attempt saved it"
                                                : fmt::format("it was saved by {}, which is no earlier attempt of this "
                                                              "run that the queue knows",
                                                              saver)));
  LoadedCheckpoint loaded;
  loaded.folder = candidate.path;
  loaded.step = manifest.at("step").get<int64_t>();
  if (loaded.step != candidate.step)
    throw EngineError(FailureReason::data_error, fmt::format("its manifest is of step {}", loaded.step));
  loaded.config_hash = manifest.at("config_hash").get<std::string>();
  loaded.scalars = manifest.at("scalars").get<std::map<std::string, std::string>>();
  loaded.weights = read_checked(candidate.path, weights_name, manifest);
  loaded.optimizer = read_checked(candidate.path, optimizer_name, manifest);
  loaded.state = read_checked(candidate.path, state_name, manifest);
  return loaded;
}

// Without reading the tensors: is there a good manifest, and are the files as long as it says?
bool looks_whole(const Candidate& candidate) {
  try {
    const json manifest = read_manifest(candidate.path);
    for (const auto& [name, file] : manifest.at("files").items())
      if (fs::file_size(fs::path(candidate.path) / name) != file.at("bytes")) return false;
    return true;
  } catch (const std::exception&) {  // EngineError, json::exception, filesystem_error: all mean no
    return false;
  }
}

// A checkpoint that could not be removed costs disk space, not the run: it is logged.
void remove_folder(const std::string& path) {
  std::error_code failure;
  fs::remove_all(path, failure);
  if (failure) log::warn("cannot remove old checkpoint {}: {}", path, failure.message());
}

// Renamed first: a removal cut short must not leave half a checkpoint under a checkpoint's name.
void remove_checkpoint(const std::string& path) {
  const std::string leaving = path + std::string(unfinished);
  if (std::rename(path.c_str(), leaving.c_str()) != 0) {
    log::warn("cannot remove old checkpoint {}: {}", path, std::strerror(errno));
    return;
  }
  remove_folder(leaving);
}

void write_files(const std::string& folder, const CheckpointContent& content) {
  std::map<std::string, WrittenFile> files;
  files[weights_name] = write_safetensors(folder + "/" + weights_name, content.weights, {{"format", "pt"}});
  files[optimizer_name] = write_safetensors(folder + "/" + optimizer_name, content.optimizer, {});
  files[state_name] = write_safetensors(folder + "/" + state_name, content.state, {});
  check(write_file_atomically(folder + "/" + manifest_name, make_manifest(content, files)), folder);
}

// Of nobody, if its manifest cannot be read.
bool is_of_another(const Candidate& candidate, const CheckpointOwner& owner) {
  try {
    return !owner.owns(saved_by(read_manifest(candidate.path)));
  } catch (const std::exception&) {
    return false;
  }
}

void remove_superseded(const std::string& folder, const Candidate& saved, const CheckpointOwner& owner, int keep) {
  int kept = 0;
  for (const Candidate& candidate : list_folder(folder).candidates) {
    const bool is_saved = candidate.path == saved.path;
    if (!is_saved && is_of_another(candidate, owner)) continue;
    const bool stays = is_saved || (candidate.step < saved.step && kept < keep && looks_whole(candidate));
    if (stays)
      ++kept;
    else
      remove_checkpoint(candidate.path);
  }
}

}  // namespace

bool CheckpointOwner::owns(const std::string& saved_by) const {
  return attempt.empty() || saved_by == attempt || std::find(earlier.begin(), earlier.end(), saved_by) != earlier.end();
}

std::string save_checkpoint(const std::string& folder, const CheckpointContent& content, int keep) {
  check(make_folders(folder), folder);
  const Listing before = list_folder(folder);
  for (const std::string& path : before.unfinished) remove_folder(path);
  Candidate saved{"", content.step, 1};
  for (const Candidate& other : before.candidates)
    if (other.step == saved.step) saved.revision = std::max(saved.revision, other.revision + 1);
  saved.path = (fs::path(folder) / folder_name(saved.step, saved.revision)).string();

  const std::string temporary = saved.path + std::string(unfinished);
  try {
    check(make_folders(temporary), temporary);
    write_files(temporary, content);
    if (std::rename(temporary.c_str(), saved.path.c_str()) != 0) save_failed(saved.path, std::strerror(errno));
  } catch (const EngineError&) {
    remove_folder(temporary);
    throw;
  } catch (const json::exception& e) {  // a scalar that is not UTF-8
    remove_folder(temporary);
    save_failed(saved.path, e.what());
  }
  check(sync_folder(folder), folder);
  remove_superseded(folder, saved, content.owner, keep);
  return saved.path;
}

std::optional<LoadedCheckpoint> load_newest_checkpoint(const std::string& folder, std::vector<std::string>* notes,
                                                       const CheckpointOwner& owner) {
  for (const Candidate& candidate : list_folder(folder).candidates) {
    const auto skip = [&](const char* why) {
      if (notes != nullptr) notes->push_back(fmt::format("skipped checkpoint {}: {}", candidate.path, why));
    };
    try {
      return load(candidate, owner);
    } catch (const EngineError& e) {
      skip(e.what());
    } catch (const json::exception& e) {  // the manifest is not JSON, or lacks a key
      skip(e.what());
    }
  }
  return std::nullopt;
}

}  // namespace assay
