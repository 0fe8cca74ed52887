// Figures are pictures until they come near the window; then plotly, which is 4 MB, draws them so that they answer to
// the mouse. It lies beside this file: nothing comes from the network, and a page opened from disk works as well.
(() => {
  const source = new URL("plotly.min.js", document.currentScript.src).href;
  let loading;

  function plotly() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = () => resolve(window.Plotly);
      script.onerror = reject;
      document.head.append(script);
    });
    return loading;
  }

  async function draw(figure) {
    const { data, layout, config } = JSON.parse(figure.querySelector("script").textContent);
    const place = figure.querySelector(".place");
    const Plotly = await plotly();
    await Plotly.newPlot(place, data, layout, { ...config, displaylogo: false, scrollZoom: false });
    figure.classList.add("drawn");
  }

  document.addEventListener("DOMContentLoaded", () => {
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        watch.unobserve(entry.target);
        draw(entry.target);
      }
    }, { rootMargin: "600px" });
    document.querySelectorAll(".figure").forEach((figure) => watch.observe(figure));
  });
})();
