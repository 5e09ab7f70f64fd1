// Open the demo page in a browser, type texts, and print what it says: type_in_page.mjs CHROMIUM URL TEXTS
import { chromium } from "playwright-core";

const [executablePath, url, texts] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage();
const errors = [], outside = [];
page.on("pageerror", (error) => errors.push(String(error)));
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
page.on("request", (request) => {
  if (!request.url().startsWith(new URL(url).origin) && !/^(data|blob):/.test(request.url())) outside.push(request.url());
});
await page.goto(url);
await page.waitForSelector("body[data-ready]", { timeout: 60000 });
const said = [];
for (const text of JSON.parse(texts)) {
  await page.fill("#text", "");
  await page.locator("#text").pressSequentially(text);
  await page.waitForFunction((typed) => document.body.dataset.text === typed, text);
  said.push(await page.evaluate(() => ({ ...document.body.dataset })));
}
const status = await page.textContent("#status"), shown = await page.locator("#answers li").count();
await browser.close();
console.log(JSON.stringify({ said, status, shown, errors, outside }));
