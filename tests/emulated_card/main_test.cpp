#include "tests/skip_report.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::UnitTest::GetInstance()->listeners().Append(new gm::test::SkipReport);
  return RUN_ALL_TESTS();
}
