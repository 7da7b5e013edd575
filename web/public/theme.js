// Sets the theme and the language before anything is painted. A file of its own: the page allows no inline script.
(function () {
  var root = document.documentElement;
  var theme = null;
  var language = null;
  try {
    theme = localStorage.getItem("sallyport.theme");
    language = localStorage.getItem("sallyport.language");
  } catch {
    // Storage is closed to us; the system's choice stands.
  }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  if (!language) language = (navigator.language || "en").toLowerCase().indexOf("zh") === 0 ? "zh-CN" : "en";
  root.lang = language;
})();
