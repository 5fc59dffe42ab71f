// The Queue tab: cards that the server renders, patched by id when the queue's version changes, so that an opened log
// stays open. Times are told relative to now, here.
(() => {
  "use strict";
  const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

  const ago = (iso) => {
    const seconds = (new Date(iso) - Date.now()) / 1000;
    for (const [unit, length] of UNITS) if (Math.abs(seconds) >= length) return words.format(Math.round(seconds / length), unit);
    return "just now";
  };
  const tellTimes = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      time.textContent = ago(time.dateTime);
      time.title = new Date(time.dateTime).toLocaleString();
    }
    for (const silent of root.querySelectorAll("[data-expires]")) silent.hidden = new Date(silent.dataset.expires) > Date.now();
  };

  const patchCard = (old, fresh) => {
    if (old.dataset.version === fresh.dataset.version) return old;
    const before = old.querySelector("details");
    const after = fresh.querySelector("details");
    if (before && after) after.open = before.open;
    old.replaceWith(fresh);
    return fresh;
  };
  const patchSection = (old, fresh) => {
    const known = new Map([...old.querySelectorAll("[data-id]")].map((card) => [card.dataset.id, card]));
    const cards = [...fresh.querySelectorAll("[data-id]")].map((card) => (known.has(card.dataset.id) ? patchCard(known.get(card.dataset.id), card) : card));
    old.querySelector(".cap-cards").replaceChildren(...cards);
    old.querySelector("h2").replaceWith(fresh.querySelector("h2"));
    old.hidden = fresh.hidden;
  };

  const mount = async (element, cancel) => {
    const panel = element.querySelector(".cap-queue");
    const patch = (fresh) => {
      for (const section of panel.querySelectorAll("[data-section]")) {
        patchSection(section, fresh.querySelector(`[data-section="${section.dataset.section}"]`));
      }
      panel.querySelector("[data-empty]").hidden = fresh.querySelector("[data-empty]").hidden;
      const [stages, now] = [panel, fresh].map((root) => root.querySelector("[data-stages]"));
      if (stages.textContent !== now.textContent) stages.textContent = now.textContent; // read out when it changes
    };
    const renew = async () => {
      const answer = await fetch("api/queue.html");
      if (!answer.ok) throw new Error(`the queue answered ${answer.status}`);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      window.capPage.anew(panel, () => patch(fresh));
      for (const log of panel.querySelectorAll("pre")) log.scrollTop = log.scrollHeight;
      tellTimes(panel);
      panel.dataset.live = "yes";
    };
    panel.addEventListener("click", (event) => {
      const button = event.target.closest("[data-cancel]");
      if (!button) return;
      if (button.dataset.sure) cancel(button.dataset.cancel);
      else {
        button.dataset.sure = "yes";
        button.textContent = "Really cancel";
        setTimeout(() => ((button.textContent = "Cancel"), delete button.dataset.sure), 4000);
      }
    });
    setInterval(() => tellTimes(panel), 5000);
    window.capPage.watch("queue", renew);
    await renew().catch(() => {}); // the next look does it
  };
  window.capQueue = { mount };
})();
