// Whole files appear under their name or not at all: written beside it, synced, renamed.
#pragma once
#include <cstddef>
#include <string>

namespace gm {

/// A name in the folder of `path` that no other process uses; ends with the same extension.
std::string temporary_name(const std::string& path);

/// Syncs `temporary` to disk and renames it to `path`. On failure removes it and throws gm::Error.
void commit_file(const std::string& temporary, const std::string& path);

/// Writes `size` bytes as the whole content of `path`. Throws gm::Error naming the file and the reason
/// (no such folder, no permission, disk full); then neither a partial nor a temporary file is left.
void write_file_atomic(const std::string& path, const void* bytes, size_t size);
void write_file_atomic(const std::string& path, const std::string& text);

}  // namespace gm
