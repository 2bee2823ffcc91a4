// Command lines as text that a POSIX shell reads back.
#pragma once
#include <string>

namespace gm {

/// One word, in quotes where it needs them.
std::string shell_word(std::string word);
/// A whole `argv`; the program by its name alone.
std::string shell_command(int argc, char** argv);

}  // namespace gm
