// A block of a document that is made from the code: between "<!-- table: NAME -->" and "<!-- end -->". The test fails
// where it is not as the code says; with ASSAY_UPDATE_DOCS=1 in the environment it writes it instead.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/file.h"
#include "tests/support/paths.h"
#include "tests/support/put_file.h"

namespace assay {

// `document` from the root of the repository; `block` ends with a line break.
inline void expect_doc_block(const std::string& document, const std::string& name, const std::string& block) {
  const std::string path = source_dir() + "/" + document;
  std::string text = read_file(path).value();
  const std::string begin = "<!-- table: " + name + " -->\n", end = "<!-- end -->";
  const size_t found = text.find(begin);
  ASSERT_NE(found, std::string::npos) << document << " has no " << begin;
  const size_t from = found + begin.size();
  const size_t to = text.find(end, from);
  ASSERT_NE(to, std::string::npos) << "the block " << begin << " of " << document << " has no " << end;
  if (text.substr(from, to - from) == block) return;
  if (const char* update = std::getenv("ASSAY_UPDATE_DOCS"); update != nullptr && std::string(update) == "1") {
    put_file(path, text.replace(from, to - from, block));
    return;
  }
  EXPECT_EQ(text.substr(from, to - from), block)
      << document << ": run this test with ASSAY_UPDATE_DOCS=1 in the environment to write the block anew";
}

}  // namespace assay
