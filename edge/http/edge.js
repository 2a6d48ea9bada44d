// edge.js: keeps a click's transaction_id on the advertiser's own site and fires conversions. See docs/edge-js.md.
// Comment lines and indentation are left out of what is served.
(function (w, d) {
  "use strict";
  var tag = d.currentScript, early = w.clickedge || [], keys = Object.keys;
  if (!tag || early.loaded) return;
  var server = tag.src.replace(/\/edge\.js([?#].*)?$/, "");
  var ID = /^[A-Za-z0-9-]{1,64}$/, NUMBER = /^\d{1,10}$/;
  var PASSED = /^(source|aff_(sub\d?|click_id|unique\d)|utm_\w+|contact_id|url_id|file_id)$/;
  // Where EDGE_HONOUR_DNT is on, the comment below is code.
  var isPrivate = navigator.globalPrivacyControl/*dnt*/, mayKeep;
  // waiting: who waits for the id; null: consent was withdrawn, and nobody waits any more.
  // turn: another from each withdrawal on; what began in an earlier one goes no further. views: aborts impressions.
  var page = {}, offer, aff, waiting = [], begun, isKnown, turn = 0, views;

  function setting(name) {
    return tag.getAttribute("data-" + name) || "";
  }

  // A fault of ours, or of a callback, never reaches the page.
  function quietly(work) {
    return function (a, b) {
      try {
        return work(a, b);
      } catch (e) {}
    };
  }

  function query(fields) {
    return keys(fields).filter(function (name) {
      return /^\w+$/.test(name) && fields[name] != null && fields[name] !== "";
    }).map(function (name) {
      return name + "=" + encodeURIComponent(fields[name]);
    }).join("&");
  }

  // Of several with one name the first counts. The "?" makes a name such as __proto__ one like others.
  var readPair = quietly(function (pair) {
    var at = pair.indexOf("="), name = "?" + pair.slice(0, at);
    if (at > 0 && !page[name]) page[name] = decodeURIComponent(pair.slice(at + 1).replace(/\+/g, " "));
  });

  function number(first, second) {
    return NUMBER.test(first) ? first : NUMBER.test(second) ? second : "";
  }

  var write = quietly(function (value, days) {
    var domain = setting("cookie-domain");
    d.cookie = "_clickedge=" + value + ";Path=/;SameSite=Lax;Max-Age=" + days * 86400 +
      (domain && ";Domain=" + domain) + (location.protocol === "https:" ? ";Secure" : "");
  });

  var read = quietly(function () {
    return mayKeep ? d.cookie : "";
  });

  function keep(value) {
    var days = setting("cookie-days") || 30;
    if (mayKeep && days > 0) write(value, days);
  }

  // Any of those who waited may withdraw the consent.
  function settle(id) {
    var mine = turn;
    api.transaction_id = id;
    isKnown = true;
    waiting.splice(0).forEach(function (then) {
      if (mine === turn) then(id);
    });
  }

  function get(path, then) {
    var mine = turn, xhr = new XMLHttpRequest();
    xhr.open("GET", server + path);
    xhr.timeout = 10000;
    xhr.onloadend = function () {
      if (mine === turn) then(xhr.responseText);
    };
    xhr.send();
  }

  // Whether anything may be kept or read: asked before the first time. No answer means no.
  function ask(then) {
    mayKeep = !isPrivate;
    if (!mayKeep || !offer) return then();
    get("/edge.js/" + offer, function (text) {
      mayKeep = /true/.test(text);
      then();
    });
  }

  function mint() {
    var fields = {offer_id: offer, aff_id: aff};
    keys(page).forEach(function (name) {
      if (PASSED.test(name.slice(1))) fields[name.slice(1)] = page[name];
    });
    get("/clk?" + query(fields), function (text) {
      var id = (/"transaction_id":"([\w-]{1,64})"/.exec(text) || [])[1];
      if (id) keep([id, offer, aff].join("."));
      settle(id || "");
    });
  }

  // In this order: what the URL brings, what an earlier page kept, a session of this page's own if a partner sent it.
  function start() {
    if (begun) return;
    var mine = turn;
    begun = true;
    location.search.slice(1).split("&").forEach(readPair);
    offer = number(setting("offer-id"), page["?offer_id"]);
    aff = number(page["?aff_id"], setting("aff-id"));
    var sent = (setting("param") || "transaction_id,clickid").split(",").map(function (name) {
      return page["?" + name.trim()] || "";
    }).filter(ID.test, ID)[0];
    if (sent) settle(sent);
    if (mine === turn) ask(function () {
      if (sent) return keep(sent);
      var kept = /(^|; )_clickedge=([A-Za-z0-9-]{1,64})(\.\d*)?(\.\d*)?(;|$)/.exec(read());
      if (kept && !(NUMBER.test(page["?aff_id"]) && kept[3] + kept[4] !== "." + offer + "." + aff)) settle(kept[2]);
      else if (offer && aff) mint();
      else settle("");
    });
  }

  // keepalive: it goes on when the page is left, which an image does not.
  function fire(path, fields, signal) {
    var how = {mode: "no-cors", credentials: "include", keepalive: true, signal: signal};
    fetch(server + path + query(fields), how).catch(function () {});
  }

  var api = w.clickedge = {
    loaded: true,
    transaction_id: "",
    ready: function (then) {
      if (isKnown) then(api.transaction_id);
      else if (waiting) waiting.push(quietly(then));
    },
    conversion: function (sent) {
      var fields = Object.assign({}, sent);
      api.ready(function (id) {
        fields.offer_id = fields.offer_id || offer;
        fields.transaction_id = fields.transaction_id || id;
        if (fields.goal_id || fields.goal_name) fields.a = "l";
        fire(fields.a ? "/aff_goal?" : "/aff_l?", fields);
      });
    },
    impression: function () {
      api.ready(function () {
        views = views || new AbortController();
        fire("/aff_i?", {offer_id: offer, aff_id: aff}, views.signal);
      });
    },
    consent: function (isGiven) {
      if (isGiven) {
        waiting = waiting || [];
        return start();
      }
      turn++;
      // Its answer brings a cookie of the server's; a conversion's does not.
      if (views) views.abort();
      waiting = views = null;
      begun = isKnown = false;
      api.transaction_id = "";
      write("", 0);
    },
    push: function (call) {
      api[call[0]](call[1]);
    }
  };
  keys(api).slice(2).forEach(function (name) {
    api[name] = quietly(api[name]);
  });
  if (setting("consent") !== "required") api.consent(true);
  if (early.forEach) early.forEach(api.push);
})(window, document);
