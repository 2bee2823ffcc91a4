// Single files out of ZIP archives.
#pragma once
#include <string>

namespace gm {

/// Whether a file begins as ZIP archives do.
bool is_zip(const std::string& path);

/// The content of `member`, stored or deflated. Throws gm::Error naming the archive, and the member where it
/// is to blame, for an archive that is truncated, has no such member, holds it in another form or with
/// another check sum.
std::string read_zip_member(const std::string& path, const std::string& member);

}  // namespace gm
