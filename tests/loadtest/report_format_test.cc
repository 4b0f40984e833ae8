#include "loadtest/report_format.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/strings.h"
#include "tests/loadtest/example_summary.h"
#include "tests/loadtest/xml_check.h"

namespace sluice::loadtest {
namespace {

TEST(ReportNumber, KeepsThreeDigits) {
  EXPECT_EQ(Number(412.4), "412");
  EXPECT_EQ(Number(41.24), "41.2");
  EXPECT_EQ(Number(4.124), "4.12");
  EXPECT_EQ(Number(0.04124), "0.0412");
  EXPECT_EQ(Number(-41.24), "-41.2");
  EXPECT_EQ(Number(123456), "123456");
  EXPECT_EQ(Number(8), "8");
}

TEST(ReportNumber, SpecialValues) {
  EXPECT_EQ(Number(kNan), "–");
  EXPECT_EQ(Number(INFINITY), "∞");
  EXPECT_EQ(Number(-INFINITY), "−∞");
  EXPECT_EQ(Number(0), "0");
  EXPECT_EQ(Number(-0.0), "0");
  EXPECT_EQ(Number(1e-12), "0");
  EXPECT_EQ(Number(2.5e12), "2.5e+12");
}

TEST(ReportInterval, SharesTheDigitsOfTheValue) {
  EXPECT_EQ(WithInterval({412.3, 398.4, 431.1}), "412 [398, 431]");
  EXPECT_EQ(WithInterval({0.9123, 0.88, 1.012}), "0.912 [0.880, 1.012]");
  EXPECT_EQ(WithInterval({412, 398, INFINITY}), "412 [398, ∞]");
  EXPECT_EQ(WithInterval({412, -INFINITY, INFINITY}), "412 [−∞, ∞]");
  EXPECT_EQ(WithInterval({0, 0, 0.37}), "0 [0, 0.370]");
}

TEST(ReportInterval, UnknownParts) {
  EXPECT_EQ(WithInterval({}), "–");
  EXPECT_EQ(WithInterval({412.3, kNan, kNan}), "412");
}

TEST(ReportPrintable, LeavesNothingThatActs) {
  const std::string text = Printable(kHostile);
  EXPECT_TRUE(IsValidUtf8(text));
  for (const char c : text) EXPECT_FALSE(static_cast<unsigned char>(c) < 0x20) << text;
  EXPECT_EQ(text.find("\xe2\x80\xae"), std::string::npos) << "bidirectional override";
  EXPECT_EQ(Printable("grüße ∞ 漢字 😀\n"), "grüße ∞ 漢字 😀 ");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "�31m")
      << "C1: an escape sequence in one character";
  EXPECT_EQ(Printable("\xef\xbf\xbf"), "�") << "forbidden in XML";
}

TEST(ReportShortened, CountsCharactersNotBytes) {
  EXPECT_EQ(Shortened("grüße", 5), "grüße");
  EXPECT_EQ(Shortened("grüßen", 5), "grüß…");
  EXPECT_EQ(Columns(Shortened("漢字漢字漢字", 4)), 4u);
}

TEST(ReportXmlText, IsSafeInTextAndAttributes) {
  const std::string text = XmlText(kHostile);
  EXPECT_EQ(XmlError("<a b=\"" + text + "\">" + text + "</a>"), "");
  EXPECT_EQ(text.find_first_of("<>\"'"), std::string::npos);
}

TEST(XmlCheck, FindsWhatIsBroken) {
  EXPECT_EQ(XmlError("<!DOCTYPE html>\n<a b=\"&amp;\"><c/> &lt; </a>\n"), "");
  for (const char* bad : {"<a>", "<a></b>", "<a b=c/>", "<a b=\"1\" b=\"2\"/>", "<a>&nbsp;</a>", "<a>\x01</a>",
                          "<a/><a/>", "text", "<a b=\"<\"/>", "<a>]]></a>", "<a", "<a>\xff</a>", ""}) {
    EXPECT_NE(XmlError(bad), "") << bad;
  }
}

}  // namespace
}  // namespace sluice::loadtest
