// SQLite on a disk that forgets at a power cut whatever was not synced. While it lives every database opened in this
// process goes through it; the files themselves are written as usual, and what a cut would leave of them is kept.
#pragma once

#include <sqlite3.h>

#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace assay {

class PowerCutVfs {
 public:
  // The files as they would be found: path -> content, only those that were ever synced.
  using Disk = std::map<std::string, std::shared_ptr<const std::string>>;

  // `before_sync` is called before a file is synced: the last moment at which the disk is as it is.
  explicit PowerCutVfs(std::function<void()> before_sync = {}) : before_sync_(std::move(before_sync)) {
    real_ = sqlite3_vfs_find(nullptr);
    vfs_ = *real_;
    vfs_.zName = "power_cut";
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.pAppData = this;
    vfs_.xOpen = open;
    vfs_.xDelete = remove;
    sqlite3_vfs_register(&vfs_, 1);
  }
  ~PowerCutVfs() {
    sqlite3_vfs_register(real_, 1);
    sqlite3_vfs_unregister(&vfs_);
  }
  PowerCutVfs(const PowerCutVfs&) = delete;
  PowerCutVfs& operator=(const PowerCutVfs&) = delete;

  // What was synced and nothing else.
  const Disk& synced() const { return synced_; }
  // The same, and some of the pages that were written since: a disk writes in whatever order it likes.
  Disk some_written(unsigned seed) const {
    constexpr size_t page = 4096;
    std::mt19937 random(seed);
    Disk disk = synced_;
    for (auto& [path, content] : disk) {
      const std::string now = read(path);
      std::string mixed = *content;
      for (size_t at = 0; at < now.size(); at += page) {
        if (random() % 2 == 0) continue;
        const std::string part = now.substr(at, page);
        if (mixed.size() < at + part.size()) mixed.resize(at + part.size(), '\0');
        mixed.replace(at, part.size(), part);
      }
      content = std::make_shared<const std::string>(std::move(mixed));
    }
    return disk;
  }

 private:
  struct File {
    sqlite3_file base;
    PowerCutVfs* owner;
    const char* path;  // lives as long as the file is open
    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  };
  static File* file(sqlite3_file* f) { return reinterpret_cast<File*>(f); }
  static sqlite3_file* real(sqlite3_file* f) { return file(f)->real(); }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  static int open(sqlite3_vfs* vfs, const char* path, sqlite3_file* out, int flags, int* out_flags) {
    auto* owner = static_cast<PowerCutVfs*>(vfs->pAppData);
    File* opened = file(out);
    opened->base.pMethods = nullptr;
    opened->owner = owner;
    opened->path = path;
    const int code = owner->real_->xOpen(owner->real_, path, opened->real(), flags, out_flags);
    if (opened->real()->pMethods != nullptr) opened->base.pMethods = methods();
    return code;
  }
  static int remove(sqlite3_vfs* vfs, const char* path, int sync_folder) {
    auto* owner = static_cast<PowerCutVfs*>(vfs->pAppData);
    const int code = owner->real_->xDelete(owner->real_, path, sync_folder);
    if (code == SQLITE_OK) owner->synced_.erase(path);
    return code;
  }
  static int sync(sqlite3_file* f, int flags) {
    PowerCutVfs& owner = *file(f)->owner;
    if (owner.before_sync_) owner.before_sync_();
    const int code = real(f)->pMethods->xSync(real(f), flags);
    if (code == SQLITE_OK && file(f)->path != nullptr)
      owner.synced_[file(f)->path] = std::make_shared<const std::string>(read(file(f)->path));
    return code;
  }
  // Everything else is the real file's.
  static const sqlite3_io_methods* methods() {
    using F = sqlite3_file*;
    static const sqlite3_io_methods all = {
        2,
        [](F f) { return real(f)->pMethods->xClose(real(f)); },
        [](F f, void* to, int n, sqlite3_int64 at) { return real(f)->pMethods->xRead(real(f), to, n, at); },
        [](F f, const void* from, int n, sqlite3_int64 at) { return real(f)->pMethods->xWrite(real(f), from, n, at); },
        [](F f, sqlite3_int64 size) { return real(f)->pMethods->xTruncate(real(f), size); },
        sync,
        [](F f, sqlite3_int64* size) { return real(f)->pMethods->xFileSize(real(f), size); },
        [](F f, int lock) { return real(f)->pMethods->xLock(real(f), lock); },
        [](F f, int lock) { return real(f)->pMethods->xUnlock(real(f), lock); },
        [](F f, int* held) { return real(f)->pMethods->xCheckReservedLock(real(f), held); },
        [](F f, int op, void* arg) { return real(f)->pMethods->xFileControl(real(f), op, arg); },
        [](F f) { return real(f)->pMethods->xSectorSize(real(f)); },
        [](F f) { return real(f)->pMethods->xDeviceCharacteristics(real(f)); },
        [](F f, int page, int size, int extend, void volatile** to) {
          return real(f)->pMethods->xShmMap(real(f), page, size, extend, to);
        },
        [](F f, int at, int n, int flags) { return real(f)->pMethods->xShmLock(real(f), at, n, flags); },
        [](F f) { real(f)->pMethods->xShmBarrier(real(f)); },
        [](F f, int remove) { return real(f)->pMethods->xShmUnmap(real(f), remove); },
        nullptr,
        nullptr};
    return &all;
  }

  std::function<void()> before_sync_;
  sqlite3_vfs* real_ = nullptr;
  sqlite3_vfs vfs_{};
  Disk synced_;
};

}  // namespace assay
