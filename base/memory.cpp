#include "base/memory.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace assay {
namespace {

// The number behind `key` on the line that starts with it ("MemTotal:  16384 kB", "inactive_file 4096"); 0 if none
// does.
int64_t number_after(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    int64_t value = 0;
    if (word == key && file >> value) return value;
    file.clear();
    file.ignore(1 << 20, '\n');
  }
  return 0;
}

int64_t number_in(const std::string& path) {
  int64_t value = 0;
  std::ifstream(path) >> value;  // "max" where there is no limit, and then nothing is read
  return value;
}

}  // namespace

HostMemory host_memory(const MemorySources& sources) {
  HostMemory memory{number_after(sources.meminfo, "MemTotal:") * 1024,
                    number_after(sources.meminfo, "MemAvailable:") * 1024};
  const int64_t limit = number_in(sources.cgroup + "/memory.max");
  if (limit <= 0) return memory;
  memory.total_bytes = memory.total_bytes > 0 ? std::min(memory.total_bytes, limit) : limit;
  // Files in the page cache count as used, but go when memory is wanted.
  const std::string stat = sources.cgroup + "/memory.stat";
  const int64_t cached = number_after(stat, "inactive_file") + number_after(stat, "active_file");
  const int64_t left = std::max<int64_t>(1, limit - number_in(sources.cgroup + "/memory.current") + cached);
  memory.available_bytes = memory.available_bytes > 0 ? std::min(memory.available_bytes, left) : left;
  return memory;
}

}  // namespace assay
