// A file written piece by piece that appears under its name only when it is complete.
#pragma once

#include <fstream>
#include <string>

#include "base/status.h"

namespace assay {

class NewFile {
 public:
  explicit NewFile(std::string path);  // opens "<path>.partial.<pid>"; commit() tells if that failed
  ~NewFile();                          // removes the partial file unless committed
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  std::ostream& stream() { return stream_; }
  Status commit();

 private:
  std::string path_;
  std::string partial_;
  std::ofstream stream_;
  bool opened_ = false;
  bool committed_ = false;
};

}  // namespace assay
