# Serves config.ru as a Rack server would, with nothing but Ruby itself: rack and puma are gems.

require "socket"
require "stringio"

def run(app)
  server = TCPServer.new("127.0.0.1", 0)
  warn "listening on http://127.0.0.1:#{server.addr[1]}"
  loop do
    Thread.new(server.accept) do |connection|
      method, path, = connection.gets.split(" ")
      env = { "REQUEST_METHOD" => method, "PATH_INFO" => path }
      until (line = connection.gets.chomp).empty?
        name, value = line.split(": ", 2)
        env["HTTP_#{name.upcase.tr("-", "_")}"] = value
      end
      env["rack.input"] = StringIO.new(connection.read(env["HTTP_CONTENT_LENGTH"].to_i).to_s.b)
      status, _, body = app.call(env)
      text = body.join
      length = status == 204 ? "" : "Content-Length: #{text.bytesize}\r\n"
      connection.write("HTTP/1.1 #{status} .\r\nConnection: close\r\n#{length}\r\n#{text}")
    ensure
      connection.close
    end
  end
end

load "./config.ru"
