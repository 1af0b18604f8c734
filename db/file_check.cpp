#include "db/file_check.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/unique_handle.h"

namespace assay {

namespace {

struct NetworkType {
  uint64_t magic;
  std::string_view name;
};
// statfs(2) and the kernels' own headers; those without a macro in linux/magic.h are written out.
constexpr std::array network_types = {
    NetworkType{NFS_SUPER_MAGIC, "NFS"},   NetworkType{SMB_SUPER_MAGIC, "SMB (smbfs)"},
    NetworkType{0xFF534D42, "SMB (CIFS)"}, NetworkType{0xFE534D42, "SMB2"},
    NetworkType{AFS_SUPER_MAGIC, "AFS"},   NetworkType{0x6B414653, "AFS (kAFS)"},
    NetworkType{V9FS_MAGIC, "9P"},         NetworkType{CODA_SUPER_MAGIC, "Coda"},
    NetworkType{NCP_SUPER_MAGIC, "NCP"},   NetworkType{0x00C36400, "Ceph"},
    NetworkType{0x0BD00BD0, "Lustre"},     NetworkType{0x47504653, "GPFS"},
    NetworkType{0x19830326, "BeeGFS"},     NetworkType{0xAAD7AAEA, "PanFS"},
    NetworkType{0x20030528, "OrangeFS"},
};
// FUSE carries local file systems too (bindfs, overlays, ntfs-3g): only these are known to be remote.
constexpr std::array<std::string_view, 12> remote_fuse = {
    "fuse.sshfs", "fuse.s3fs",   "fuse.rclone",    "fuse.gcsfuse", "fuse.glusterfs", "fuse.davfs",
    "fuse.ceph",  "fuse.cephfs", "fuse.curlftpfs", "fuse.juicefs", "fuse.goofys",    "fuse.ceph-fuse",
};

// The mount type of the device, from /proc/self/mountinfo: "... major:minor root point options - TYPE source options".
std::string mount_type_of(dev_t device) {
  std::string wanted = fmt::format("{}:{}", major(device), minor(device));
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string id, parent, numbers, word, type;
    words >> id >> parent >> numbers;
    if (numbers != wanted) continue;
    while (words >> word && word != "-") {
    }
    if (words >> type) return type;
  }
  return "";
}

Error refuse(ErrorCode code, const std::string& path, const std::string& why) {
  return Error{code, fmt::format("{}: {}", path, why)};
}

Error open_failure(const std::string& path, int error) {
  switch (error) {
    case EISDIR:
      return refuse(ErrorCode::failed_precondition, path,
                    "this is a folder, and the database must be a file; move the folder away or choose another home");
    case ENOENT:
      return refuse(ErrorCode::not_found, path, "the folder of the database does not exist; create it");
    case EACCES:
    case EPERM:
      return refuse(ErrorCode::permission_denied, path,
                    "no permission to write the database; check who owns it and its folder");
    case EROFS:
      return refuse(ErrorCode::permission_denied, path,
                    "the file system is mounted read-only; choose a home that can be written");
    case ENOSPC:
    case EDQUOT:
      return refuse(ErrorCode::resource_exhausted, path, "the disk is full; free space on its file system");
    default:
      return refuse(ErrorCode::unavailable, path, fmt::format("cannot open the database: {}", std::strerror(error)));
  }
}

}  // namespace

std::string_view network_file_system(uint64_t statfs_type, std::string_view mount_type) {
  for (const auto& known : network_types) {
    if (known.magic == statfs_type) return known.name;
  }
  if (statfs_type == FUSE_SUPER_MAGIC) {
    for (std::string_view known : remote_fuse) {
      if (known == mount_type) return known;
    }
  }
  return "";
}

Status prepare_database_file(const std::string& path) {
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) return open_failure(path, errno);
  struct stat info {};
  struct statfs system {};
  if (fstat(file.get(), &info) != 0 || fstatfs(file.get(), &system) != 0) return open_failure(path, errno);
  if (!S_ISREG(info.st_mode)) {
    return refuse(ErrorCode::failed_precondition, path, "not a regular file, and the database must be one");
  }
  // f_type is signed and 32-bit magic numbers are sign-extended on some systems.
  uint64_t magic = static_cast<uint32_t>(system.f_type);
  if (std::string_view name = network_file_system(magic, mount_type_of(info.st_dev)); !name.empty()) {
    if (info.st_size == 0) ::unlink(path.c_str());  // ours, just created
    return refuse(ErrorCode::failed_precondition, path,
                  fmt::format("this is on a network file system ({}), where SQLite's locks and shared memory are not "
                              "safe; put ASSAY_HOME on a local disk",
                              name));
  }
  if ((info.st_mode & 0777) != 0600 && fchmod(file.get(), 0600) != 0) return open_failure(path, errno);
  return {};
}

}  // namespace assay
