#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
# A headless Chromium for scripts, through its debugging pipe.
"""Reads one command a line from standard input and answers each with one line,
"ok VALUE" or "failed WHY":

  open URL          go there and wait until it is loaded
  size W H          of the window; below 600 it is a telephone's
  script on|off     whether pages may run any
  wait MS EXPR      until the JavaScript expression is true
  value EXPR        of a JavaScript expression, as JSON
  shot FILE         the whole page as PNG
  errors            what the console complained of since the last open, as JSON
"""
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
         "--ignore-certificate-errors", "about:blank"]


class Failed(Exception):
    pass


class Browser:
    def __init__(self, program, profile):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # the pipe is descriptors 3 (to read) and 4 (to write)
        shell = 'exec 3<&%d 4>&%d; exec "$@"' % (theirs_in, theirs_out)
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", program,
             "--user-data-dir=" + profile] + FLAGS,
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader = os.fdopen(ours_in, "rb", buffering=0)
        self.writer = os.fdopen(ours_out, "wb", buffering=0)
        self.rest = b""
        self.number = 0
        self.session = None
        self.complaints = []
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")
        self.session = self.call("Target.attachToTarget", flatten=True,
                                 targetId=target["targetId"])["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")

    def next_message(self):
        while b"\0" not in self.rest:
            data = self.reader.read(65536)
            if not data:
                raise Failed("the browser has ended")
            self.rest += data
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and \
                params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.writer.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next_message()
            if answer.get("id") != self.number:
                self.note(answer)
                continue
            if "error" in answer:
                raise Failed(answer["error"]["message"])
            return answer["result"]

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression,
                           returnByValue=True)
        if "exceptionDetails" in result:
            raise Failed(result["exceptionDetails"]["exception"]
                         .get("description", "an exception"))
        return result["result"].get("value")

    def open(self, url):
        self.complaints = []
        self.loaded = False
        problem = self.call("Page.navigate", url=url).get("errorText")
        if problem:
            raise Failed(problem)
        while not self.loaded:
            self.note(self.next_message())

    def wait(self, ms, expression):
        end = time.monotonic() + ms / 1000
        while not self.value(expression):
            if time.monotonic() > end:
                raise Failed("not within %d ms: %s" % (ms, expression))
            time.sleep(0.05)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width,
                  height=height, deviceScaleFactor=1, mobile=width < 600)

    def shot(self, name):
        data = self.call("Page.captureScreenshot",
                         captureBeyondViewport=True)["data"]
        with open(name, "wb") as f:
            f.write(base64.b64decode(data))

    def run(self, line):
        command, _, rest = line.partition(" ")
        if command == "open":
            return self.open(rest)
        if command == "size":
            return self.size(*map(int, rest.split()))
        if command == "script":
            return self.call("Emulation.setScriptExecutionDisabled",
                             value=rest == "off") and None
        if command == "wait":
            ms, _, expression = rest.partition(" ")
            return self.wait(int(ms), expression)
        if command == "value":
            return self.value(rest)
        if command == "shot":
            return self.shot(rest)
        if command == "errors":
            return self.complaints
        raise Failed("no such command: " + command)


def main():
    program = shutil.which("chromium") or shutil.which("chromium-browser") \
        or shutil.which("google-chrome")
    if not program:
        sys.exit("no Chromium is installed")
    profile = tempfile.mkdtemp(prefix="detour-browser.")
    browser = Browser(program, profile)
    try:
        for line in sys.stdin:
            try:
                answer = "ok " + json.dumps(browser.run(line.rstrip("\n")))
            except Failed as e:
                answer = "failed " + str(e).replace("\n", " ")
            print(answer, flush=True)
    finally:
        browser.process.kill()
        browser.process.wait()
        shutil.rmtree(profile, ignore_errors=True)


main()
