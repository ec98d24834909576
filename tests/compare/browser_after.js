// Put last into the page under test: uses it as a reader would, and leaves the answers in the page.
(() => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const until = async (test) => { for (let i = 0; i < 400 && !test(); i++) await wait(50); };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const texts = (selector) => all(selector).map((element) => element.textContent.trim());
  const firstLine = (cell) => (cell.querySelector(".plan") || cell).textContent.trim();
  const names = (table) => all(`#${table} tbody tr`).filter((row) => !row.hidden).map((row) => firstLine(row.cells[0]));
  const header = (table, title) => all(`#${table} thead button`).find((button) => button.textContent.trim() === title);
  const change = (element, value, event = "change") => {
    element.value = value;
    element.dispatchEvent(new Event(event));
  };

  const steps = {
    open: () => ({
      title: document.querySelector("h1").textContent,
      plots: all(".plot").length,
      undrawn: all(".plot").filter((plot) => !plot.querySelector("svg.main-svg")).length,
      wide: document.documentElement.scrollWidth,
      room: window.innerWidth,
      images: all("img").length,
    }),

    sort: () => {
      const seen = [names("leaderboard")];
      for (const title of ["Epoch time", "Epoch time", "Plan"]) {
        header("leaderboard", title).click();
        seen.push(names("leaderboard"));
      }
      return { seen, marks: all("#leaderboard th[aria-sort]").map((h) => [h.textContent.trim(), h.getAttribute("aria-sort")]) };
    },

    find: () => {
      const field = document.getElementById("find-case");
      const before = names("case-table");
      change(field, "4", "input");
      const found = [names("case-table"), document.getElementById("found-cases").textContent];
      change(field, "", "input");
      header("case-table", "unet").click();
      header("case-table", "unet").click();
      return { before, found, best: names("case-table")[0], numbers: texts("#case-table tbody tr:first-child td") };
    },

    choices: () => {
      let number = 0;
      for (const choice of all(".controls select")) {
        const first = choice.value;
        for (const value of [...choice.options].map((option) => option.value).concat(first)) {
          change(choice, value);
          number += 1;
        }
      }
      return number;
    },

    view: async () => {
      const viewer = document.getElementById("viewer");
      const canvas = viewer.querySelector("canvas");
      const slider = document.getElementById("viewer-slice");
      const shot = async (state) => {
        await until(() => viewer.dataset.drawn === state);
        return canvas.toDataURL();
      };
      const start = Number(slider.value);
      const first = await shot(`0|${start}`);
      canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: 100, cancelable: true }));
      const scrolled = await shot(`0|${start + 1}`);
      canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown" }));
      const back = await shot(`0|${start}`);
      const boxes = all("#viewer [data-outline]");
      boxes.forEach((box) => box.click());
      await wait(500);
      const bare = canvas.toDataURL();
      change(document.getElementById("viewer-case"), "1");
      await until(() => viewer.dataset.drawn.startsWith("1|"));
      return {
        drawn: first.length > 2000, moved: first !== scrolled, returned: first === back, outlines: back !== bare,
        other: viewer.dataset.drawn, label: canvas.getAttribute("aria-label"), dice: texts(".panel .dice"),
      };
    },

    untick: async () => {
      const count = () => ["cost", "cases", "curves"].map((name) => document.getElementById(`plot-${name}`).data.length);
      const before = count();
      all(".chips input").find((box) => box.dataset.plan === "slow").click();
      await wait(500);
      return { before, after: count(), rows: names("leaderboard") };
    },
  };

  window.addEventListener("load", async () => {
    await wait(300);
    const answers = {};
    for (const name of document.documentElement.dataset.steps.split(" ")) {
      try {
        answers[name] = await steps[name]();
      } catch (error) {
        problems.push(`${name}: ${error.stack}`);
      }
    }
    const place = document.createElement("pre");
    place.id = "answers";
    place.textContent = encodeURIComponent(JSON.stringify({ answers, problems }));
    document.body.append(place);
  });
})();
