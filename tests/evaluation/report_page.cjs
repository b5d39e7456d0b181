// Opens the page at argv[2] in the browser at argv[3], uses it as a reader would, prints what was seen as JSON.
"use strict";
const { chromium } = require("playwright-core");

(async () => {
  const [, , file, executablePath] = process.argv;
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  const complaints = [];
  const requests = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(`file://${file}`);

  const lines = () => page.$$eval(".case", (cases) => cases.map((item) => Number(item.dataset.line)));
  const filter = (name, value) => page.selectOption(`select[name=${name}]`, value);
  const reset = () => page.click("button[type=reset]");
  const seen = { complaints, requests };

  seen.atFirst = await lines();
  await filter("show", "all");
  seen.all = await lines();
  seen.count = await page.textContent("#count");
  seen.texts = await page.$$eval(".case .text", (nodes) => nodes.map((node) => node.textContent));
  // what each span of a case covers, put together from the segments that bear its number
  seen.spans = await page.$$eval(".case", (cases) => cases.map((item) =>
    [...item.querySelectorAll(".span")].map((row) => ({
      label: row.querySelector("b").textContent,
      listed: row.querySelector(".surface").textContent,
      lit: [...item.querySelectorAll(".seg")]
        .filter((segment) => segment.dataset.spans.split(" ").includes(row.dataset.span))
        .map((segment) => segment.textContent).join(""),
    }))));
  seen.glyphs = await page.evaluate(() => {
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    context.font = `40px ${getComputedStyle(document.body).fontFamily}`;
    const ink = (char) => {
      context.canvas.width = context.canvas.height = 60;
      context.font = `40px ${getComputedStyle(document.body).fontFamily}`;
      context.fillText(char, 5, 45);
      return Array.from(context.getImageData(0, 0, 60, 60).data).join("");
    };
    return new Set(["人", "京", "说", "\u{10fffe}"].map(ink)).size; // the last one has no glyph anywhere
  });
  await filter("kind", "wrong boundary");
  seen.wrongBoundary = await lines();
  await reset();
  await page.waitForTimeout(50);
  seen.afterReset = await lines();
  await filter("show", "all");
  await filter("label", "机构");
  seen.organisations = await lines();
  await filter("label", "");
  await filter("slice", "50-100");
  seen.long = await lines();
  await filter("slice", "");
  await filter("seen", "seen");
  seen.known = await lines();
  await filter("seen", "");
  await page.fill("input[name=search]", "师范");
  seen.search = await lines();
  await page.fill("input[name=search]", "nowhere");
  seen.nowhere = await page.textContent("#count");
  await page.fill("input[name=search]", "王小明");
  await page.hover(".case .span");
  seen.lit = await page.$$eval(".seg.lit", (nodes) => nodes.map((node) => node.textContent));
  await page.fill("input[name=search]", "");

  // by keyboard alone: from the search field on, Tab reaches the reset button, Enter presses it
  await page.focus("input[name=search]");
  await page.keyboard.type("师范");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForTimeout(50);
  seen.byKeyboard = await lines();

  await page.setViewportSize({ width: 380, height: 800 });
  seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (await page.isVisible("#next")) {
    seen.pages = [await page.textContent("#page")];
    await page.click("#next");
    seen.pages.push(await page.textContent("#page"));
    seen.second = await lines();
  }
  await browser.close();
  process.stdout.write(JSON.stringify(seen));
})();
