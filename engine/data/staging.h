// A folder that is made elsewhere and then appears, or replaces its old self, in one step.
#pragma once

#include <string>

#include "base/status.h"
#include "base/unique_handle.h"

namespace assay {

// Owns <target>.preparing until publish(); removes it if that never happens. One owner at a time, over all processes.
class StagingFolder {
 public:
  // Empties what a killed predecessor left. Errors: the target cannot be replaced (see publish); another process has
  // it.
  static Result<StagingFolder> create(const std::string& target);
  StagingFolder(StagingFolder&&) noexcept;
  StagingFolder& operator=(StagingFolder&&) = delete;
  ~StagingFolder();

  const std::string& path() const { return path_; }      // write here
  const std::string& target() const { return target_; }  // absolute, links resolved
  // Makes path() the target. A target that exists must be empty, or a corpus: a folder with a corpus.json and nothing
  // that its "files" does not list. It is swapped out in one rename and then removed.
  Status publish();

 private:
  StagingFolder(std::string target, std::string path, UniqueFd lock);
  std::string target_;
  std::string path_;  // empty = published or moved from
  UniqueFd lock_;
};

}  // namespace assay
