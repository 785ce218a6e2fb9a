// No C++ exception crosses to Rust: it becomes a message that Rust frees.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

// Null, or what went wrong, to be given to `free`.
template <typename Body>
char* guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}
