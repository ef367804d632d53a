(() => {
  "use strict";
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const options = {mode: "vega-lite", renderer: "svg", actions: false, ast: true, tooltip: {disableDefaultStyle: true}};
  const draw = (host) =>
    vegaEmbed(host, specs[host.dataset.chart], options)
      .then(() => host.classList.add("drawn"))
      .catch((error) => {
        host.classList.add("failed");
        host.textContent = `This chart could not be drawn (${error.message}). Its numbers are in the tables.`;
      });
  for (const host of document.querySelectorAll("[data-chart]")) draw(host);
})();
