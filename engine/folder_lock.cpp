#include "engine/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/common/error.h"

namespace gm {

FolderLock::FolderLock(const std::string& folder, bool wait, const std::string& name) {
  const std::string path = folder + "/" + name;
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(path + ": cannot write: " + std::strerror(errno));
  int status;
  do status = ::flock(fd_, LOCK_EX | (wait ? 0 : LOCK_NB));
  while (status != 0 && errno == EINTR);
  held_ = status == 0 || errno != EWOULDBLOCK;  // file systems without locks: as if it were held
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace gm
