// A folder of its own for one test, removed with it.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <stdexcept>
#include <string>

namespace assay {

class TempFolder {
 public:
  TempFolder() {
    std::string path = std::filesystem::temp_directory_path().string() + "/assay-XXXXXX";
    if (!::mkdtemp(path.data())) throw std::runtime_error("cannot make a temporary folder");
    path_ = path;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace assay
