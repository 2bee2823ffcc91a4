#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "data/csv.h"
#include "data/dataset.h"
#include "data/utf8.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {
using test::TempDir;
using Names = std::vector<std::string>;

TEST(DataCsv, SomeColumnsAlone) {
  TempDir dir;
  test::write_text(dir / "a.csv", "a,b,c,b\n1,2,3,4\n5,6,7,8\n");
  const CsvTable table(dir / "a.csv", {"c", "a", "none"});
  EXPECT_EQ(table.column("a"), 0);
  EXPECT_EQ(table.column("c"), 1);
  EXPECT_EQ(table.column("b"), -1);
  EXPECT_EQ(table.column("none"), -1);
  EXPECT_EQ(table.cell(1, 0) + table.cell(1, 1), "57");
  EXPECT_EQ(table.column_list(), "a, b, c, b");
  EXPECT_ERROR(CsvTable(dir / "a.csv", {"b"}).column("b"), "a.csv:1: two columns are called 'b'");
  test::write_text(dir / "n.csv", "a,b\n1,2\n1,2,3\n");
  EXPECT_ERROR(CsvTable(dir / "n.csv", {"a"}), "n.csv:3: 3 cells, but the header has 2");
}

// A cell is more than ten times as large as its text. Measured in a process of its own.
TEST(DataCatalog, OtherColumnsAreNotKept) {
  TempDir dir;
  std::string text = "id_str,label", row;
  for (int k = 0; k < 200; ++k) text += ",c" + std::to_string(k), row += ",1";
  text += "\n";
  for (int i = 0; i < 50000; ++i) text += "g" + std::to_string(i) + ",0" + row + "\n";
  test::write_text(dir / "a.csv", text);
  const size_t bytes = text.size();
  const auto within = [&] {
    rusage before{}, after{};
    ::getrusage(RUSAGE_SELF, &before);
    const size_t size = static_cast<size_t>(open_dataset(dir / "a.csv")->size());
    ::getrusage(RUSAGE_SELF, &after);
    std::_Exit(
        size == 50000 && static_cast<size_t>(after.ru_maxrss - before.ru_maxrss) * 1024 < 3 * bytes ? 0 : 1);
  };
  EXPECT_EXIT(within(), testing::ExitedWithCode(0), "");
}

TEST(DataCsv, QuotesBomCrlfAndBlankLines) {
  TempDir dir;
  test::write_text(dir / "a.csv",
                   "\xEF\xBB\xBF"
                   "a, b ,c\r\n\r\n1,\"x, \"\"y\"\"\nz\" ,3\r\n\n4,,6");
  CsvTable table(dir / "a.csv");
  ASSERT_EQ(table.rows(), 2);
  EXPECT_EQ(table.column("b"), 1);
  EXPECT_EQ(table.column("d"), -1);
  EXPECT_EQ(table.cell(0, 1), "x, \"y\"\nz");
  EXPECT_EQ(table.cell(1, 1), "");
  EXPECT_EQ(table.cell(1, 2), "6");
  EXPECT_NE(table.where(0).find("a.csv:3"), std::string::npos);
  EXPECT_NE(table.where(1).find("a.csv:6"), std::string::npos);
  EXPECT_EQ(csv_cell("a\"b,c"), "\"a\"\"b,c\"");
  EXPECT_EQ(csv_cell("a\t"), "\"a\t\"") << "outer blanks of a bare cell are not read";
}

TEST(DataCsv, BadFiles) {
  TempDir dir;
  EXPECT_ERROR(CsvTable(dir / "none.csv"), "none.csv: cannot open");
  test::write_text(dir / "e.csv", "\n\n");
  EXPECT_ERROR(CsvTable(dir / "e.csv"), "empty file");
  test::write_text(dir / "q.csv", "a,b\n1,\"x\n");
  EXPECT_ERROR(CsvTable(dir / "q.csv"), "q.csv:2: a quote is never closed");
  test::write_text(dir / "n.csv", "a,b\n1,2\n1,2,3\n");
  EXPECT_ERROR(CsvTable(dir / "n.csv"), "n.csv:3: 3 cells, but the header has 2");
  test::write_text(dir / "d.csv", "a,b,a\n1,2,3\n");
  EXPECT_ERROR(CsvTable(dir / "d.csv").column("a"), "d.csv:1: two columns are called 'a'");
  EXPECT_EQ(CsvTable(dir / "d.csv").column("b"), 1);
  test::write_text(dir / "z.csv", std::string("a\0b", 3));
  EXPECT_ERROR(CsvTable(dir / "z.csv"), "not a text file");
}

/// A folder with images/a.jpg and images/b.png and a labels.csv of the given text.
struct Catalog {
  explicit Catalog(const std::string& text) {
    std::filesystem::create_directory(dir / "images");
    write_image(dir / "images/a.jpg", test::gradient(20, 20));
    write_image(dir / "images/b.png", test::gradient(10, 12));
    test::write_text(dir / "labels.csv", text);
  }
  std::shared_ptr<Dataset> open(const Names& classes = {}) { return open_dataset(dir.path(), {classes}); }
  TempDir dir;
};

TEST(DataCatalog, IntegerLabelsWithClassNames) {
  Catalog c(
      "id_str,file_loc,label,class,ra,dec\na,images/a.jpg,2,spiral,10.5,-3\nb,images/b.png,0,round,,\n"
      "a,images/a.jpg,,,1,2\n");
  auto data = c.open();
  EXPECT_EQ(c.open({"0", "1", "2"})->label(0), 2) << "a model without names is met by number";
  ASSERT_EQ(data->size(), 3);
  EXPECT_EQ(data->classes(), (Names{"round", "1", "spiral"}));
  EXPECT_EQ(data->label(0), 2);
  EXPECT_EQ(data->label(2), -1);
  EXPECT_EQ(data->id(2), "a") << "an id may occur twice";
  EXPECT_EQ(data->read(1).height, 12);
  double ra, dec;
  ASSERT_TRUE(data->sky(0, ra, dec));
  EXPECT_EQ(ra, 10.5);
  EXPECT_FALSE(data->sky(1, ra, dec));
}

TEST(DataCatalog, MissingNamesAndColumnsInCapitals) {
  Catalog c("id_str,label,RA,DEC\na,spiral,10,20\nb,nan,11,21\na,round,12,22\n");
  auto data = c.open();
  EXPECT_EQ(data->classes(), (Names{"round", "spiral"}));
  EXPECT_EQ(data->label(1), -1);
  double ra, dec;
  ASSERT_TRUE(data->sky(2, ra, dec));
  EXPECT_EQ(dec, 22);
}

TEST(DataCatalog, PositionsOffTheSkyAreNotKnown) {
  Catalog c("id_str,label,ra,dec\na,0,-999,-999\nb,1,10,-90.1\na,0,361,0\nb,1,-0.5,90\n");
  auto data = c.open();
  double ra, dec;
  for (const int64_t missing : {0, 1, 2}) EXPECT_FALSE(data->sky(missing, ra, dec)) << missing;
  ASSERT_TRUE(data->sky(3, ra, dec));
  EXPECT_EQ(ra, -0.5);
  // Missing ones as databases and astropy write them; declinations with their sign.
  Catalog others("id_str,label,ra,dec\na,0,null,null\nb,1,--,--\na,0,10.5,+41.27\n");
  data = others.open();
  for (const int64_t missing : {0, 1}) EXPECT_FALSE(data->sky(missing, ra, dec)) << missing;
  ASSERT_TRUE(data->sky(2, ra, dec));
  EXPECT_EQ(dec, 41.27);
  for (const char* bad : {"+-1", "++1", "+", "1+", "+ 1"})
    EXPECT_ERROR(Catalog(std::string("id_str,label,ra,dec\na,0,10,") + bad + "\n").open(), "is not a number");
}

TEST(DataCatalog, AnIndexOfMinusOneIsNoLabel) {
  Catalog c("id_str,label\na,-1\nb,1\n");
  EXPECT_EQ(c.open()->label(0), -1);
  EXPECT_EQ(c.open()->classes(), (Names{"0", "1"}));
  EXPECT_ERROR(Catalog("id_str,label\na,-2\nb,1\n").open(), "labels.csv:2: label -2 is not a class");
  // Nor is it a class beside names, wherever it stands.
  for (const char* rows : {"a,-1\na,spiral\nb,round\n", "a,spiral\na,-1\nb,round\n"}) {
    const auto data = Catalog(std::string("id_str,label\n") + rows).open();
    EXPECT_EQ(data->classes(), (Names{"round", "spiral"})) << rows;
    EXPECT_EQ(data->label(0) + data->label(1), 0) << rows;
    EXPECT_EQ(data->label(2), 0) << rows;
  }
  EXPECT_EQ(Catalog("id_str,label,class\na,-1,spiral\nb,-1,round\n").open()->label(0), -1);
}

// Also in the first row, which tells indices from names.
TEST(DataCatalog, MissingLabelsAsDatabasesAndAstropyWriteThem) {
  for (const char* none : {"", "nan", "NaN", "null", "NULL", "--"})
    for (const std::string labels : {"0 1", "round spiral"}) {
      const std::string first = labels.substr(0, labels.find(' ')), second = labels.substr(first.size() + 1);
      Catalog c(std::string("id_str,label\na,") + none + "\na," + first + "\nb," + second + "\n");
      const auto data = c.open();
      EXPECT_EQ(data->classes(), (Names{first, second})) << none;
      EXPECT_EQ(data->label(0), -1) << none;
      EXPECT_EQ(data->label(2), 1) << none;
    }
  // The name of an index may be missing in some rows, or in all.
  for (const char* none : {"", "nan", "NaN", "null", "NULL", "--"}) {
    const std::string rows = std::string("id_str,label,class\na,0,") + none + "\nb,1," + none + "\n";
    EXPECT_EQ(Catalog(rows).open()->classes(), (Names{"0", "1"})) << none;
    EXPECT_EQ(Catalog(rows + "a,1,spiral\n").open()->classes(), (Names{"0", "spiral"})) << none;
  }
}

TEST(DataCatalog, NamesAsLabelsAndModelsOwnOrder) {
  Catalog c("id_str,label\na,spiral\nb,round\n");
  auto data = c.open();
  EXPECT_EQ(data->classes(), (Names{"round", "spiral"}));
  EXPECT_EQ(data->label(0), 1);
  EXPECT_EQ(data->read(0).width, 20) << "found as images/a.jpg";
  EXPECT_EQ(data->read(1).width, 10) << "found as images/b.png";
  auto mine = c.open({"spiral", "bar", "round"});
  EXPECT_EQ(mine->label(0), 0);
  EXPECT_EQ(mine->label(1), 2);
  EXPECT_ERROR(c.open({"round", "bar"}),
               "labels.csv:2: class \"spiral\" is not one of the model's: round, bar");
}

// `label` counts for a model with names as it does in training; `class` only names its numbers.
TEST(DataCatalog, LabelCountsAndClassNames) {
  const Names model{"round", "spiral"};
  Catalog survey("id_str,label,class\na,spiral,GALAXY\nb,round,GALAXY\n");
  EXPECT_EQ(survey.open(model)->label(0), 1);
  EXPECT_EQ(survey.open()->classes(), model);
  Catalog half("id_str,label,class\na,0,spiral\nb,0,\n");  // numbered otherwise than by the model
  EXPECT_EQ(half.open(model)->label(0), 1);
  EXPECT_EQ(half.open(model)->label(1), 1);
  Catalog unnamed("id_str,label,class\na,1,\nb,0,\n");
  EXPECT_EQ(unnamed.open(model)->label(0), 1);
  Catalog names("id_str,label,class\na,,spiral\nb,,round\n");
  EXPECT_EQ(names.open(model)->label(0), 1);
  EXPECT_EQ(names.open()->label(0), 1);
  Catalog gaps("id_str,label\na,1.0\nb,nan\n");  // as tables with missing values are written
  EXPECT_EQ(gaps.open()->classes(), (Names{"0", "1"}));
  EXPECT_EQ(gaps.open(model)->label(0), 1);
  EXPECT_EQ(gaps.open(model)->label(1), -1);
}

TEST(DataCatalog, AColumnForEachClass) {
  const Names classes{"spiral", "round"};
  Catalog c("id_str,round,spiral,weight\na,1,0,0.5\nb,0.0,1.0,2\n");
  const auto data = c.open(classes);
  EXPECT_EQ(data->classes(), classes);
  EXPECT_EQ(data->label(0), 1);
  EXPECT_EQ(data->label(1), 0);
  EXPECT_TRUE(c.open()->classes().empty()) << "nobody says which columns are classes";
  Catalog partly("id_str,round,spiral\na,0,0\nb,,1\n");
  EXPECT_EQ(partly.open(classes)->label(0), -1);
  EXPECT_EQ(partly.open(classes)->label(1), 0);
  EXPECT_FALSE(partly.open(classes)->soft());
  Catalog both("id_str,round,spiral\na,0,1\nb,1,1\n");
  EXPECT_ERROR(both.open(classes), "labels.csv:3: both spiral and round are 1");
  Catalog first("id_str,label,round,spiral\na,spiral,1,0\n");
  EXPECT_EQ(first.open(classes)->label(0), 0) << "label counts";
}

TEST(DataCatalog, UnlabelledAndPathOnly) {
  Catalog c("file_loc\nimages/a.jpg\n");
  auto data = c.open();
  EXPECT_EQ(data->id(0), "a");
  EXPECT_EQ(data->label(0), -1);
  EXPECT_TRUE(data->classes().empty());
}

TEST(DataCatalog, Errors) {
  auto error = [](const std::string& text, const Names& classes = {}) {
    Catalog c(text);
    return test::error_of([&] { c.open(classes); });
  };
  auto has = [](const std::string& text, const char* part) {
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, part, text);
  };
  has(error("name,label\na,1\n"), "needs a column \"file_loc\" or \"id_str\"; it has name, label");
  has(error("id_str,label\n"), "no rows");
  has(error("id_str,label\na,1\nb,x\n"), "labels.csv:3: label \"x\" is not an integer");
  has(error("id_str,label\na,1\nb,-5\n"), "labels.csv:3: label -5 is not a class");
  has(error("id_str,label\na,1\nb,7\n", {"p", "q"}), "labels.csv:3: label 7 is not a class (0..1)");
  has(error("id_str,label,class\na,1,x\nb,1,y\n"),
      "labels.csv:3: label 1 is class \"y\" here but \"x\" before");
  has(error("id_str,label,class\na,0,x\nb,1,x\n"), "classes 0 and 1 are both called \"x\"");
  has(error("id_str,label,class\na,-5,p\n", {"p", "q"}), "labels.csv:2: label -5 is not a class");
  has(error("id_str,label\na,1.5\nb,1\n", {"p", "q"}), "labels.csv:2: class \"1.5\" is not one of");
  has(error("id_str,label\na,Caf\xE9\n"), "labels.csv:2: not UTF-8 text");
  has(error("id_str,ra,dec\na,1h,2\n"), "labels.csv:2: ra \"1h\" is not a number");
  has(error("id_str,file_loc\n,\n"), "labels.csv:2: neither id_str nor file_loc");
  Catalog c("id_str,file_loc\na,images/gone.jpg\n");
  EXPECT_ERROR(c.open()->read(0), "gone.jpg: no such file");
}

TEST(DataOpen, FoldersFilesAndTheRest) {
  TempDir dir;
  EXPECT_ERROR(open_dataset(dir / "none"), "no such file or folder");
  EXPECT_ERROR(open_dataset(dir.path()), "no JPEG or PNG images and no labels.csv in this folder");
  std::filesystem::create_directory(dir / "d.png");
  EXPECT_ERROR(open_dataset(dir.path()), "in this folder, and its subfolders are not searched: name them");
  write_image(dir / "b.png", test::gradient(4, 4));
  write_image(dir / "a.jpg", test::gradient(4, 4));
  test::write_text(dir / "notes.txt", "x");
  std::filesystem::create_symlink("/gone/c.png", dir / "c.png");
  ASSERT_EQ(mkfifo((dir / "e.png").c_str(), 0600), 0);
  auto folder = open_dataset(dir.path());
  ASSERT_EQ(folder->size(), 4) << "all that are no folders: what cannot be read is to be reported";
  EXPECT_ERROR(folder->read(2), "c.png: no such file");
  EXPECT_ERROR(folder->read(3), "e.png: is no regular file");
  EXPECT_EQ(folder->id(0), "a");
  EXPECT_EQ(folder->label(0), -1);
  EXPECT_EQ(open_dataset(dir / "b.png")->id(0), "b");
  EXPECT_ERROR(open_dataset(dir / "notes.txt"), "unknown kind of data");
}

TEST(DataOpen, IdsFromFileNamesAreUtf8) {
  TempDir dir;
  const std::string e = "\xC3\xA9", latin = "\xE9";
  for (const std::string& name : {"a" + latin + "\xE8" + "b", "b" + e, "c" + latin})
    write_image(dir / (name + ".png"), test::gradient(4, 4));
  const auto folder = open_dataset(dir.path());
  ASSERT_EQ(folder->size(), 3);
  EXPECT_EQ(folder->id(0), "a%E9%E8b");
  EXPECT_EQ(folder->id(1), "b" + e);
  EXPECT_EQ(folder->id(2), "c%E9");
  EXPECT_EQ(folder->read(2).width, 4);
  EXPECT_EQ(open_dataset(dir / ("c" + latin + ".png"))->id(0), "c%E9");
}

TEST(DataUtf8, WhatIsNone) {
  for (const char* text :
       {"", "abc", "\xC2\x80", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(not_utf8(text), std::string::npos) << text;
    EXPECT_EQ(utf8_of(text), text);
  }
  for (const char* text : {"a\x80", "a\xC1\x81", "a\xE0\x9F\x80", "a\xED\xA0\x80", "a\xF0\x8F\x80\x80",
                           "a\xF4\x90\x80\x80", "a\xF5", "a\xC3", "a\xE2\x82", "a\xC3q"})
    EXPECT_EQ(not_utf8(text), 1u) << text;
  EXPECT_EQ(utf8_of("x\xC3q\xE9"), "x%C3q%E9");
  EXPECT_EQ(bytes_of("x%C3q%E9"), "x\xC3q\xE9");
  for (const char* text : {"100%", "%", "%E", "%41", "%ZZ", "a%E-"}) EXPECT_EQ(bytes_of(text), text);
}

TEST(DataOpen, RealImages) {
  const char* shared = std::getenv("GM_SHARED_DATA");
  if (!shared) GTEST_SKIP() << "GM_SHARED_DATA is not set";
  for (auto [name, side, classes] : {std::tuple{"gz5", 264, 5}, {"efigi10", 88, 10}}) {
    auto data = open_dataset((std::filesystem::path(shared) / name).string());
    EXPECT_GT(data->size(), 3000);
    EXPECT_EQ(static_cast<int>(data->classes().size()), classes);
    for (int64_t i = 0; i < data->size(); i += 97) {
      Image image = data->read(i);
      EXPECT_EQ(image.width, side) << data->id(i);
      EXPECT_EQ(image.height, side) << data->id(i);
    }
  }
}

TEST(DataCsv, LinesMayEndAsOnOldMacs) {
  test::TempDir dir;
  test::write_text(dir / "a.csv", "a,b\r1,2\r\r3,\"4\"\r");
  const CsvTable table(dir / "a.csv");
  ASSERT_EQ(table.rows(), 2);
  EXPECT_EQ(table.cell(0, 1) + table.cell(1, 1), "24");
  EXPECT_NE(table.where(1).find("a.csv:4"), std::string::npos);
}

TEST(DataCsv, CellsThatAreWrittenAreReadAgain) {
  test::TempDir dir;
  for (const std::string text :
       {"plain", "a\nb", "a\rb", " front", "back ", "\"quoted\"", "x,y", "it\"s", ""}) {
    test::write_text(dir / "a.csv", "x,y\n" + csv_cell(text) + ",1\n");
    EXPECT_EQ(CsvTable(dir / "a.csv").cell(0, 0), text);
  }
}

TEST(DataCsv, BlanksAroundQuotesAndQuotesWithinCells) {
  test::TempDir dir;
  test::write_text(dir / "a.csv", "a,b\n \"x \" ,5\"\n");
  const CsvTable table(dir / "a.csv");
  EXPECT_EQ(table.cell(0, 0), "x ");
  EXPECT_EQ(table.cell(0, 1), "5\"");
}

TEST(DataCsv, AnEmptyFirstCellIsNoBlankLine) {
  test::TempDir dir;
  test::write_text(dir / "a.csv", ",b\n,1\n");
  EXPECT_EQ(CsvTable(dir / "a.csv").rows(), 1);
}

TEST(DataCsv, NumbersAreWholeCells) {
  double value = 0;
  int64_t whole = 0;
  EXPECT_TRUE(parse_double("+12.5", value));
  EXPECT_EQ(value, 12.5);
  EXPECT_TRUE(parse_int("+3", whole));
  EXPECT_EQ(whole, 3);
  for (const char* none : {"+-5", "5x", "", "+", "nan", "inf", "1e999"}) {
    EXPECT_FALSE(parse_double(none, value)) << none;
    EXPECT_FALSE(parse_int(none, whole)) << none;
  }
}

}  // namespace
}  // namespace gm
