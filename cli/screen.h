// The terminal while `assay watch` owns it: alternate screen, no echo, keys one by one. Gives everything back when it
// goes out of scope, also on SIGINT, SIGTERM and SIGHUP, which it turns into a key.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

namespace assay {

enum class Key { none, leave, up, down, page_up, page_down, home, end, resized };

struct ScreenSize {
  int width = 80;
  int height = 24;
};

class Screen {
 public:
  explicit Screen(std::ostream& out);
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  ScreenSize size() const;
  // Replaces what is shown, without flicker: lines are overwritten in place.
  void show(const std::vector<std::string>& lines);
  // The next key, or `none` after timeout_ms.
  Key next_key(int64_t timeout_ms);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace assay
