// Kills a piece of code for real, with SIGKILL, at every point where it changes files.
#pragma once

#include <functional>
#include <string>

namespace assay {

struct KillPoint {
  int call = 0;       // the n-th file-changing system call of the work, from 0
  bool torn = false;  // killed after half of this write(2) was done, else just before the call
  std::string describe() const;
};

struct KillPoints {
  std::function<void()> set_up;                  // before every run: the state to start from
  std::function<bool()> work;                    // in a child process; false or an exception fails the test
  std::function<void(const KillPoint&)> verify;  // after every kill: what must hold
};

// Runs the work once for every point, and returns how many times it was killed. -1 where this system does not let a
// process trace its child: then the test must skip itself.
int kill_at_every_point(const KillPoints& points);

}  // namespace assay
