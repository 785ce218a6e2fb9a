// No C++ exception crosses to Rust: it becomes a message.

#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

// The result of `body`, or -1 with `error` set.
template <typename Body>
int guarded(std::string* error, Body body) {
  try {
    return body();
  } catch (const c10::Error& e) {
    *error = e.what_without_backtrace();
  } catch (const std::exception& e) {
    *error = e.what();
  } catch (...) {
    *error = "unknown C++ exception";
  }
  return -1;
}
